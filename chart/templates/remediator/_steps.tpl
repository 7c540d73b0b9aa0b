{{/* The steps of `then` of all rules, those of groups as well, as a JSON list. */}}
{{- define "selfheal.remediator.steps" -}}
{{- $steps := list -}}
{{- if .Values.remediator.enabled -}}
{{- $rules := .Values.remediator.config.rules -}}
{{- range .Values.remediator.config.groups -}}{{- $rules = concat $rules (default list .rules) -}}{{- end -}}
{{- range $rules -}}{{- $steps = concat $steps (default list .then) -}}{{- end -}}
{{- end -}}
{{- toJson $steps -}}
{{- end -}}

{{/* What steps need that other systems carry out, as JSON: rules of a Role by its namespace, those of the ClusterRole by
     the empty one. The same as actions/permissions.py of the remediator, which checks at its start that it has them. */}}
{{- define "selfheal.remediator.rights" -}}
{{- $rights := dict -}}
{{- range include "selfheal.remediator.steps" . | fromJsonArray -}}
{{- $place := "" -}}
{{- $rule := dict -}}
{{- with .machine -}}
{{- $place = default "" .namespace -}}
{{- $verbs := list "get" "list" (eq .mode "delete" | ternary "delete" "patch") -}}
{{- $rule = dict "apiGroups" (list "cluster.x-k8s.io") "resources" (list "machines") "verbs" $verbs -}}
{{- end -}}
{{- with .resource -}}
{{- $place = default "" .template.metadata.namespace -}}
{{- $group := contains "/" .template.apiVersion | ternary (splitList "/" .template.apiVersion | first) "" -}}
{{- $resource := .plural | default (include "selfheal.plural" .template.kind) -}}
{{- $verbs := concat (list "get" "create") (ternary (list "delete") list (default false .cleanUp)) -}}
{{- $rule = dict "apiGroups" (list $group) "resources" (list $resource) "verbs" $verbs -}}
{{- end -}}
{{- if $rule -}}
{{- $_ := set $rights $place (append (get $rights $place | default list) $rule | uniq) -}}
{{- end -}}
{{- end -}}
{{- toJson $rights -}}
{{- end -}}

{{/* The plural that Kubernetes itself guesses for a kind (UnsafeGuessKindToResource). */}}
{{- define "selfheal.plural" -}}
{{- $name := lower . -}}
{{- if eq $name "endpoints" -}}{{- $name -}}
{{- else if hasSuffix "s" $name -}}{{- $name -}}es
{{- else if hasSuffix "y" $name -}}{{- trimSuffix "y" $name -}}ies
{{- else -}}{{- $name -}}s
{{- end -}}
{{- end -}}

{{/* Egress rule: the servers of webhooks, by the ports of their URLs; of a URL in a file nothing is known, it is 443. */}}
{{- define "selfheal.network.webhooks" -}}
{{- $ports := list -}}
{{- range include "selfheal.remediator.steps" . | fromJsonArray -}}
{{- with .webhook -}}
{{- $url := urlParse (default "https:" .url) -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq (lower $url.scheme) "https" | ternary "443" "80")) -}}
{{- end -}}
{{- end -}}
{{- with uniq $ports | sortAlpha -}}
- ports:
    {{- range . }}
    - {port: {{ . }}}
    {{- end }}
{{- end -}}
{{- end -}}

{{- define "selfheal.guards.steps" -}}
{{- $p := list -}}
{{- range include "selfheal.remediator.steps" . | fromJsonArray -}}
{{- with .webhook -}}
{{- $seconds := include "selfheal.seconds" (default "15s" .requestTimeout) | float64 -}}
{{- if or (lt $seconds 1.0) (gt $seconds 30.0) -}}
{{- $p = append $p (printf "remediator.config.rules: the requestTimeout of a step `webhook` is %s: set it from 1s to 30s" .requestTimeout) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}
