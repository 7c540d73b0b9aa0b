{{/* Users and rights, imported at each start of the broker: the password in the Secret is always the one that works,
     also with an old volume. There is no guest. */}}
{{- define "selfheal.rabbitmq.definitions" -}}
{{- $auth := .Values.rabbitmq.auth -}}
{{- $generated := include "selfheal.rabbitmq.credentials" . | fromJson -}}
{{- dict
  "users" (list
    (dict "name" $auth.username "password" $generated.password "tags" (list "management"))
    (dict "name" $auth.monitorUsername "password" $generated.monitorPassword "tags" (list "monitoring")))
  "vhosts" (list (dict "name" .Values.broker.vhost))
  "permissions" (list
    (dict "user" $auth.username "vhost" .Values.broker.vhost "configure" ".*" "write" ".*" "read" ".*")
    (dict "user" $auth.monitorUsername "vhost" .Values.broker.vhost "configure" "^$" "write" "^$" "read" "^$"))
  | toPrettyJson -}}
{{- end -}}
