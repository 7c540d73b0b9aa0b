{{/* Seconds that a stopping worker gives its messages in flight: by default as long as a model call may take. */}}
{{- define "selfheal.worker.shutdownGrace" -}}
{{- include "selfheal.text" (.Values.worker.shutdownGraceSeconds | default .Values.model.deadlineSeconds) -}}
{{- end -}}

{{- define "selfheal.worker.terminationGrace" -}}
{{- if .Values.worker.terminationGracePeriodSeconds -}}
{{- .Values.worker.terminationGracePeriodSeconds | int -}}
{{- else -}}
{{- add (include "selfheal.worker.shutdownGrace" . | float64 | ceil | int) 10 -}}
{{- end -}}
{{- end -}}

{{- define "selfheal.worker.env" -}}
{{ include "selfheal.broker.env" . | trim }}
{{ include "selfheal.queue.env" . | trim }}
- {name: CONCURRENCY, value: {{ include "selfheal.text" .Values.worker.concurrency | quote }}}
- {name: MAX_ATTEMPTS, value: {{ include "selfheal.text" .Values.queue.maxAttempts | quote }}}
- {name: MAX_TEXT_BYTES, value: {{ include "selfheal.text" .Values.queue.maxTextBytes | quote }}}
- {name: SHUTDOWN_GRACE, value: {{ include "selfheal.worker.shutdownGrace" . | quote }}}
{{- with .Values.model }}
- {name: MODEL_PROVIDER, value: {{ .provider | quote }}}
{{- with .name }}
- {name: MODEL_NAME, value: {{ . | quote }}}
{{- end }}
{{- with $.Values.ollama.enabled | ternary (printf "http://%s-ollama:11434" (include "selfheal.fullname" $)) .baseUrl }}
- {name: MODEL_BASE_URL, value: {{ . | quote }}}
{{- end }}
- {name: MODEL_TEMPERATURE, value: {{ include "selfheal.text" .temperature | quote }}}
- {name: MODEL_DEADLINE, value: {{ include "selfheal.text" .deadlineSeconds | quote }}}
{{- if .existingSecret }}
- name: MODEL_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ .existingSecret }}, key: {{ .secretKey }}}
{{- end }}
{{- end }}
- {name: HTTP_PORT, value: "8080"}
- {name: LOG_LEVEL, value: {{ .Values.worker.logLevel }}}
- {name: LOG_FORMAT, value: {{ .Values.worker.logFormat }}}
{{- if gt (float64 .Values.faults.modelDelay) 0.0 }}
- {name: FAULT_MODEL_DELAY, value: {{ include "selfheal.text" .Values.faults.modelDelay | quote }}}
{{- end }}
{{- with .Values.faults.modelHangFile }}
- {name: FAULT_MODEL_HANG_FILE, value: {{ . | quote }}}
{{- end }}
{{- with .Values.worker.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
