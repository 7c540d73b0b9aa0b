{{- define "selfheal.rabbitmq.configuration" -}}
listeners.tcp.default = 5672
management.tcp.port = 15672
prometheus.tcp.port = 15692
log.console = true
log.file = false
vm_memory_high_watermark.absolute = {{ .Values.rabbitmq.memoryHighWatermark }}
disk_free_limit.absolute = {{ .Values.rabbitmq.diskFreeLimit }}
definitions.import_backend = local_filesystem
definitions.local.path = {{ empty .Values.rabbitmq.auth.existingSecret | not | ternary "/etc/selfheal/definitions" "/etc/rabbitmq" }}/definitions.json
{{- with .Values.rabbitmq.extraConfig }}
{{ . }}
{{- end }}
{{- end -}}
