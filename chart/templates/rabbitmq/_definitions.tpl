{{/* Users and rights, imported at each start of the broker: the password in the Secret is always the one that works,
     also with an old volume. There is no guest. dict: root, user and monitor (each with name, and password or what says
     where it is). */}}
{{- define "selfheal.rabbitmq.definitions" -}}
{{- $vhost := .root.Values.broker.vhost -}}
{{- dict
  "users" (list
    (merge (dict "tags" (list "management")) .user)
    (merge (dict "tags" (list "monitoring")) .monitor))
  "vhosts" (list (dict "name" $vhost))
  "permissions" (list
    (dict "user" .user.name "vhost" $vhost "configure" ".*" "write" ".*" "read" ".*")
    (dict "user" .monitor.name "vhost" $vhost "configure" "^$" "write" "^$" "read" "^$"))
  | toPrettyJson -}}
{{- end -}}

{{/* The same for whoever fills the passwords in: the Job, which finds them in the Secret by `passwordKey`. */}}
{{- define "selfheal.rabbitmq.definitions.byKey" -}}
{{- $auth := .Values.rabbitmq.auth -}}
{{- include "selfheal.rabbitmq.definitions" (dict "root" .
  "user" (dict "name" $auth.username "passwordKey" "password")
  "monitor" (dict "name" $auth.monitorUsername "passwordKey" "monitor-password")) -}}
{{- end -}}

{{/* The same for a Secret of the user's, of which only the pod knows what is in it: see files/rabbitmq/definitions.sh. */}}
{{- define "selfheal.rabbitmq.definitions.ofSecret" -}}
{{- include "selfheal.rabbitmq.definitions" (dict "root" .
  "user" (dict "name" "@username@" "password" "@password@")
  "monitor" (dict "name" "@monitor-username@" "password" "@monitor-password@")) -}}
{{- end -}}
