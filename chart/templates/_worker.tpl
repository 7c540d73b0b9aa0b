{{/* Seconds that a stopping worker gives its messages in flight: by default the duration of a model call. */}}
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

{{/* The priority class that is made for the workers; empty: none. It belongs to the cluster, hence the namespace in its
     name; Kubernetes never changes a class's value, so another value is another class. */}}
{{- define "selfheal.worker.priorityClass" -}}
{{- with .Values.worker -}}
{{- if and .enabled .priorityClass.create (not .priorityClassName) -}}
{{- printf "%s-%s-worker-%s" $.Release.Namespace (include "selfheal.fullname" $) (include "selfheal.text" .priorityClass.value | replace "-" "minus-") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The named models as the worker reads them; one on the release's own Ollama gets its URL. */}}
{{- define "selfheal.worker.models" -}}
{{- $models := dict -}}
{{- range $name, $model := .Values.models -}}
{{- $one := omit $model "existingSecret" "secretKey" -}}
{{- if and $.Values.ollama.enabled (eq $model.provider "ollama") (not $model.baseUrl) -}}
{{- $one = set $one "baseUrl" (printf "http://%s-ollama:11434" (include "selfheal.fullname" $)) -}}
{{- end -}}
{{- $models = set $models $name $one -}}
{{- end -}}
{{- toJson $models -}}
{{- end -}}

{{- define "selfheal.worker.env" -}}
{{ include "selfheal.broker.env" . | trim }}
{{ include "selfheal.queue.env" . | trim }}
- {name: CONCURRENCY, value: {{ include "selfheal.text" .Values.worker.concurrency | quote }}}
- {name: MAX_ATTEMPTS, value: {{ include "selfheal.text" .Values.queue.maxAttempts | quote }}}
- {name: MAX_TEXT_BYTES, value: {{ include "selfheal.text" .Values.queue.maxTextBytes | quote }}}
{{- with .Values.queue.maxBodyBytes }}
- {name: MAX_BODY_BYTES, value: {{ include "selfheal.text" . | quote }}}
{{- end }}
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
    secretKeyRef: {name: {{ .existingSecret | quote }}, key: {{ .secretKey | quote }}}
{{- end }}
{{- if ne .structured "auto" }}
- {name: MODEL_STRUCTURED, value: {{ .structured }}}
{{- end }}
{{- if .clamp }}
- {name: MODEL_CLAMP, value: "true"}
{{- end }}
{{- with .contextTokens }}
- {name: MODEL_CONTEXT_TOKENS, value: {{ include "selfheal.text" . | quote }}}
{{- end }}
{{- if ne .textTooLong "refuse" }}
- {name: MODEL_TEXT_TOO_LONG, value: {{ .textTooLong }}}
{{- end }}
{{- with .concurrency }}
- {name: MODEL_CONCURRENCY, value: {{ include "selfheal.text" . | quote }}}
{{- end }}
{{- with .requestsPerMinute }}
- {name: MODEL_REQUESTS_PER_MINUTE, value: {{ include "selfheal.text" . | quote }}}
{{- end }}
{{- with .options }}
- {name: MODEL_OPTIONS, value: {{ toJson . | quote }}}
{{- end }}
{{- with .active }}
- {name: MODEL_ACTIVE, value: {{ . | quote }}}
{{- end }}
{{- with .fallback }}
- {name: MODEL_FALLBACK, value: {{ . | join "," | quote }}}
{{- end }}
{{- end }}
{{- with .Values.models }}
- {name: MODELS, value: {{ include "selfheal.worker.models" $ | quote }}}
{{- range $name, $model := . }}
{{- with $model.existingSecret }}
- name: MODEL_API_KEY_{{ $name | upper | replace "-" "_" }}
  valueFrom:
    secretKeyRef: {name: {{ . | quote }}, key: {{ $model.secretKey | default "api-key" | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.task }}
- {name: TASK_FILE, value: /etc/selfheal/task/task.yaml}
{{- end }}
{{- with include "selfheal.ca.env" . }}
{{ . }}
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

{{/* What a worker reads from files: the broker's Secret, the task, and what the values add. */}}
{{- define "selfheal.worker.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
{{ include "selfheal.broker.volumeMounts" . }}
{{- with include "selfheal.ca.volumeMounts" . }}
{{ . }}
{{- end }}
{{- if .Values.task }}
- {name: task, mountPath: /etc/selfheal/task, readOnly: true}
{{- end }}
{{- with .Values.worker.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "selfheal.worker.volumes" -}}
- name: tmp
  emptyDir: {}
{{ include "selfheal.broker.volumes" . }}
{{- with include "selfheal.ca.volumes" . }}
{{ . }}
{{- end }}
{{- if .Values.task }}
- name: task
  configMap: {name: {{ printf "%s-worker-task" (include "selfheal.fullname" .) | quote }}}
{{- end }}
{{- with .Values.worker.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
