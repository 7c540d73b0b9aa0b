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

{{- define "selfheal.rabbitmq.env" -}}
- {name: HOME, value: /var/lib/rabbitmq}
# A name that does not depend on the pod's: the volume stays readable whatever the release is called.
- {name: RABBITMQ_NODENAME, value: rabbit@localhost}
- {name: RABBITMQ_LOGS, value: "-"}
# Erlang's schedulers otherwise spin while they wait, which on a shared node is somebody else's CPU.
- {name: RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS, value: +sbwt none +sbwtdcpu none +sbwtdio none}
- {name: RABBITMQ_MNESIA_BASE, value: /var/lib/rabbitmq/mnesia}
- {name: RABBITMQ_CONFIG_FILE, value: /etc/rabbitmq/rabbitmq.conf}
- {name: RABBITMQ_ENABLED_PLUGINS_FILE, value: /etc/rabbitmq/enabled_plugins}
{{- with .Values.rabbitmq.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
