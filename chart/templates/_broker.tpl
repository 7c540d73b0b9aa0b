{{- define "selfheal.rabbitmq.fullname" -}}
{{- printf "%s-rabbitmq" (include "selfheal.fullname" .) -}}
{{- end -}}

{{- define "selfheal.broker.host" -}}
{{- if .Values.rabbitmq.enabled -}}
{{- include "selfheal.rabbitmq.fullname" . -}}
{{- else -}}
{{- .Values.broker.host -}}
{{- end -}}
{{- end -}}

{{- define "selfheal.broker.port" -}}
{{- .Values.rabbitmq.enabled | ternary 5672 (.Values.broker.port | int) -}}
{{- end -}}

{{- define "selfheal.broker.secret" -}}
{{- if .Values.rabbitmq.enabled -}}
{{- .Values.rabbitmq.auth.existingSecret | default (include "selfheal.rabbitmq.fullname" .) -}}
{{- else -}}
{{- .Values.broker.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* The keys of that Secret, as JSON: those of the one that the chart makes are fixed. */}}
{{- define "selfheal.broker.keys" -}}
{{- if and .Values.rabbitmq.enabled .Values.rabbitmq.auth.existingSecret -}}
{{- with .Values.rabbitmq.auth.secretKeys -}}
{{- dict "uri" "" "username" .username "password" .password "managementUsername" .monitorUsername "managementPassword" .monitorPassword | toJson -}}
{{- end -}}
{{- else if .Values.rabbitmq.enabled -}}
{{- dict "uri" "" "username" "username" "password" "password" "managementUsername" "monitor-username" "managementPassword" "monitor-password" | toJson -}}
{{- else -}}
{{- .Values.broker.secretKeys | toJson -}}
{{- end -}}
{{- end -}}

{{- define "selfheal.broker.managementUrl" -}}
{{- if .Values.rabbitmq.enabled -}}
{{- printf "http://%s.%s.svc:15672/" (include "selfheal.rabbitmq.fullname" .) .Release.Namespace -}}
{{- else -}}
{{- printf "%s/" (trimSuffix "/" .Values.broker.managementUrl) -}}
{{- end -}}
{{- end -}}

{{/* Environment: where the broker is. The credentials are files, which the process reads again at each
     reconnect, so that a rotated password needs no restart. */}}
{{- define "selfheal.broker.env" -}}
{{- $keys := include "selfheal.broker.keys" . | fromJson -}}
{{- if $keys.uri }}
- {name: AMQP_URI_FILE, value: /etc/selfheal/broker/uri}
{{- else }}
- {name: AMQP_HOST, value: {{ include "selfheal.broker.host" . | quote }}}
- {name: AMQP_PORT, value: {{ include "selfheal.broker.port" . | quote }}}
- {name: AMQP_VHOST, value: {{ .Values.broker.vhost | quote }}}
- {name: AMQP_USERNAME_FILE, value: /etc/selfheal/broker/username}
- {name: AMQP_PASSWORD_FILE, value: /etc/selfheal/broker/password}
{{- end }}
- {name: AMQP_HEARTBEAT, value: {{ include "selfheal.text" .Values.broker.heartbeatSeconds | quote }}}
{{- with .Values.broker.tls }}
{{- if .enabled }}
- {name: AMQP_CA_FILE, value: /etc/selfheal/broker-tls/ca.crt}
{{- if .certKey }}
- {name: AMQP_CERT_FILE, value: /etc/selfheal/broker-tls/tls.crt}
- {name: AMQP_KEY_FILE, value: /etc/selfheal/broker-tls/tls.key}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "selfheal.broker.volumeMounts" -}}
- {name: broker, mountPath: /etc/selfheal/broker, readOnly: true}
{{- if .Values.broker.tls.enabled }}
- {name: broker-tls, mountPath: /etc/selfheal/broker-tls, readOnly: true}
{{- end }}
{{- end -}}

{{- define "selfheal.broker.volumes" -}}
{{- $keys := include "selfheal.broker.keys" . | fromJson -}}
- name: broker
  secret:
    secretName: {{ include "selfheal.broker.secret" . | quote }}
    defaultMode: 0440
    items:
      {{- if $keys.uri }}
      - {key: {{ $keys.uri | quote }}, path: uri}
      {{- else }}
      - {key: {{ $keys.username | quote }}, path: username}
      - {key: {{ $keys.password | quote }}, path: password}
      {{- end }}
{{- with .Values.broker.tls }}
{{- if .enabled }}
- name: broker-tls
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: 0440
    items:
      - {key: {{ .caKey | quote }}, path: ca.crt}
      {{- if .certKey }}
      - {key: {{ .certKey | quote }}, path: tls.crt}
      - {key: {{ .keyKey | quote }}, path: tls.key}
      {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Environment: the queues' names and what they are declared with; the topology Job and the workers must agree. */}}
{{- define "selfheal.queue.env" -}}
{{- with .Values.queue }}
- {name: QUEUE_NAME, value: {{ .name | quote }}}
- {name: DLQ_NAME, value: {{ .deadLetters | default (printf "%s.dead-letters" .name) | quote }}}
- {name: RESULTS_QUEUE, value: {{ .results | default (printf "%s.results" .name) | quote }}}
- {name: RETRY_DELAYS, value: {{ include "selfheal.intList" .retryDelays | quote }}}
- {name: DELIVERY_LIMIT, value: {{ include "selfheal.text" .deliveryLimit | quote }}}
- {name: RESULTS_MAX_LENGTH, value: {{ include "selfheal.text" .resultsMaxLength | quote }}}
- {name: RESULTS_MAX_AGE, value: {{ include "selfheal.text" .resultsMaxAgeSeconds | quote }}}
- {name: DLQ_MAX_LENGTH, value: {{ include "selfheal.text" .deadLettersMaxLength | quote }}}
- {name: DLQ_MAX_AGE, value: {{ include "selfheal.text" .deadLettersMaxAgeSeconds | quote }}}
{{- end }}
{{- end -}}

{{- define "selfheal.intList" -}}
{{- $out := list -}}
{{- range . }}{{- $out = append $out (include "selfheal.text" .) -}}{{- end -}}
{{- $out | join "," -}}
{{- end -}}

{{/* The bundled broker's passwords, as JSON: what a release has already is kept; what is missing is made once in a rendering
     and remembered in .Values, because several files need the same. Without a cluster nothing is made, because each
     rendering would make another one: what is missing is empty then, and a Job makes it. */}}
{{- define "selfheal.rabbitmq.credentials" -}}
{{- if not (hasKey .Values.rabbitmq.auth "generated") -}}
{{- $auth := .Values.rabbitmq.auth -}}
{{- $live := (lookup "v1" "Secret" .Release.Namespace (include "selfheal.rabbitmq.fullname" .)).data | default dict -}}
{{- $made := include "selfheal.seesCluster" . -}}
{{- $password := $auth.password | default (get $live "password" | b64dec) | default (and $made (randAlphaNum 32)) -}}
{{- $monitor := $auth.monitorPassword | default (get $live "monitor-password" | b64dec) | default (and $made (randAlphaNum 32)) -}}
{{- $_ := set $auth "generated" (dict "password" $password "monitorPassword" $monitor) -}}
{{- end -}}
{{- .Values.rabbitmq.auth.generated | toJson -}}
{{- end -}}

{{/* Not empty when a Job makes the bundled broker's passwords. */}}
{{- define "selfheal.rabbitmq.passwordsByJob" -}}
{{- if and .Values.rabbitmq.enabled (not .Values.rabbitmq.auth.existingSecret) -}}
{{- $known := include "selfheal.rabbitmq.credentials" . | fromJson -}}
{{- if not (and $known.password $known.monitorPassword) -}}yes{{- end -}}
{{- end -}}
{{- end -}}

{{/* The URIs by which others reach the bundled broker, as JSON. dict: root, user, password, monitorUser, monitorPassword (all
     as they stand in a URI). */}}
{{- define "selfheal.rabbitmq.uris" -}}
{{- $host := printf "%s.%s.svc" (include "selfheal.rabbitmq.fullname" .root) .root.Release.Namespace -}}
{{- $vhost := .root.Values.broker.vhost | urlquery | replace "+" "%20" -}}
{{- dict
  "amqp-uri" (printf "amqp://%s:%s@%s:5672/%s" .user .password $host $vhost)
  "http-uri" (printf "http://%s:%s@%s:15672/%s" .monitorUser .monitorPassword $host $vhost) | toJson -}}
{{- end -}}

{{/* Not empty if KEDA needs the broker's own certificate authority. */}}
{{- define "selfheal.broker.managementTls" -}}
{{- if and (not .Values.rabbitmq.enabled) .Values.broker.tls.enabled (hasPrefix "https://" .Values.broker.managementUrl) -}}
yes
{{- end -}}
{{- end -}}
