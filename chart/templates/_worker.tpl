{{/* Seconds that a stopping worker gives its messages in flight: by default as long as a model call may take. */}}
{{- define "selfheal.worker.shutdownGrace" -}}
{{- .Values.worker.shutdownGraceSeconds | default .Values.model.deadlineSeconds | toJson -}}
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
- {name: CONCURRENCY, value: {{ .Values.worker.concurrency | toJson | quote }}}
- {name: MAX_ATTEMPTS, value: {{ .Values.queue.maxAttempts | toJson | quote }}}
- {name: MAX_TEXT_BYTES, value: {{ .Values.queue.maxTextBytes | toJson | quote }}}
- {name: SHUTDOWN_GRACE, value: {{ include "selfheal.worker.shutdownGrace" . | quote }}}
{{- with .Values.model }}
- {name: MODEL_PROVIDER, value: {{ .provider | quote }}}
{{- with .name }}
- {name: MODEL_NAME, value: {{ . | quote }}}
{{- end }}
{{- with .baseUrl }}
- {name: MODEL_BASE_URL, value: {{ . | quote }}}
{{- end }}
- {name: MODEL_TEMPERATURE, value: {{ .temperature | toJson | quote }}}
- {name: MODEL_DEADLINE, value: {{ .deadlineSeconds | toJson | quote }}}
{{- if .existingSecret }}
- name: MODEL_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ .existingSecret }}, key: {{ .secretKey }}}
{{- end }}
{{- end }}
- {name: HTTP_PORT, value: "8080"}
- {name: LOG_LEVEL, value: {{ .Values.worker.logLevel }}}
- {name: LOG_FORMAT, value: {{ .Values.worker.logFormat }}}
{{- if .Values.faults.modelDelay }}
- {name: FAULT_MODEL_DELAY, value: {{ .Values.faults.modelDelay | toJson | quote }}}
{{- end }}
{{- with .Values.worker.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
