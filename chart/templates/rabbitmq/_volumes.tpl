{{- define "selfheal.rabbitmq.volumeMounts" -}}
- {name: configuration, mountPath: /etc/rabbitmq, readOnly: true}
# The Erlang cookie lives here and not on the volume, whose group rights Erlang would refuse.
- {name: home, mountPath: /var/lib/rabbitmq}
- {name: data, mountPath: /var/lib/rabbitmq/mnesia}
{{- if .Values.rabbitmq.auth.existingSecret }}
- {name: definitions, mountPath: /etc/selfheal/definitions, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- with .Values.rabbitmq.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "selfheal.rabbitmq.volumes" -}}
{{- $auth := .Values.rabbitmq.auth -}}
- name: configuration
  projected:
    defaultMode: 0440
    sources:
      - configMap:
          name: {{ include "selfheal.rabbitmq.fullname" . | quote }}
      {{- if not $auth.existingSecret }}
      - secret:
          name: {{ include "selfheal.rabbitmq.fullname" . | quote }}
          items:
            - {key: definitions.json, path: definitions.json}
      {{- end }}
{{- if $auth.existingSecret }}
- name: credentials
  secret:
    secretName: {{ $auth.existingSecret | quote }}
    defaultMode: 0440
    items:
      - {key: {{ $auth.secretKeys.username | quote }}, path: username}
      - {key: {{ $auth.secretKeys.password | quote }}, path: password}
      - {key: {{ $auth.secretKeys.monitorUsername | quote }}, path: monitor-username}
      - {key: {{ $auth.secretKeys.monitorPassword | quote }}, path: monitor-password}
- name: definitions
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end }}
- name: home
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- if not .Values.rabbitmq.persistence.enabled }}
- name: data
  emptyDir: {}
{{- end }}
{{- with .Values.rabbitmq.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
