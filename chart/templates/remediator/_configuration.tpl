{{/* The remediator's file: `remediator.config`, and the Lease's name, which its Role is limited to. Keys that are null
     are left out: null is the program's own default, except in a rule, where it is a value. */}}
{{- define "selfheal.remediator.configuration" -}}
{{- $config := deepCopy .Values.remediator.config -}}
{{- range $section := list "brakes" "drain" -}}
{{- range $key, $value := get $config $section -}}
{{- if kindIs "invalid" $value -}}{{- $_ := unset (get $config $section) $key -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config.lease "name" (printf "%s-remediator" (include "selfheal.fullname" .)) -}}
{{- toYaml $config -}}
{{- end -}}
