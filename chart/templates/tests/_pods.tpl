{{/* The environment of a worker on queues of its own. dict: root, of (name of the template). */}}
{{- define "selfheal.tests.env" -}}
{{- $values := deepCopy .root.Values -}}
{{- $_ := set $values "queue" (mergeOverwrite $values.queue (dict "name" (printf "%s.helm-test" .root.Values.queue.name))) -}}
{{- $_ := set $values.queue "deadLetters" "" -}}
{{- $_ := set $values.queue "results" "" -}}
{{- include .of (dict "Values" $values "Release" .root.Release "Chart" .root.Chart "Capabilities" .root.Capabilities "Template" .root.Template) -}}
{{- end -}}

{{/* What makes a pod one of `helm test`. */}}
{{- define "selfheal.tests.hook" -}}
helm.sh/hook: test
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
# Only their output remains.
helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
{{- end -}}
