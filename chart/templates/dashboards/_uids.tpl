{{/* What sets the dashboards of this release apart from another's: Grafana stops loading where two have one uid or title.
     Empty for the release `selfheal` in the namespace `selfheal`. */}}
{{- define "selfheal.dashboards.own" -}}
{{- $release := printf "%s/%s" .Release.Namespace (include "selfheal.fullname" .) -}}
{{- if ne $release "selfheal/selfheal" -}}
{{- sha256sum $release | trunc 8 -}}
{{- end -}}
{{- end -}}

{{/* The uid of a dashboard in this release. dict: root, uid (as in dashboards/). */}}
{{- define "selfheal.dashboards.uid" -}}
{{- .uid -}}
{{- with include "selfheal.dashboards.own" .root }}-{{ . }}{{- end -}}
{{- end -}}

{{/* A dashboard's JSON with the uids, links and title of this release. dict: root, text. */}}
{{- define "selfheal.dashboards.text" -}}
{{- $text := .text -}}
{{- with include "selfheal.dashboards.own" .root -}}
{{- $text = regexReplaceAll "(\"uid\": *\"|/d/)(selfheal-[a-z]+)([\"?])" $text (printf "${1}${2}-%s${3}" .) -}}
{{- $text = regexReplaceAll "(\"title\": *\"selfheal / [^\"]+)\"" $text (printf "${1} (%s/%s)\"" $.root.Release.Namespace (include "selfheal.fullname" $.root)) -}}
{{- end -}}
{{- $text -}}
{{- end -}}
