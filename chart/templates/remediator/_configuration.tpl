{{/* The remediator's file: `remediator.config`, and the Lease's name, which its Role is limited to; likewise the name of the
     ConfigMap of objects to restore, without which the section is left out. Keys that are null
     are left out: null is the program's own default, except in a rule, where it is a value. What stands beside a key is
     JSON, which is the same to every reader of YAML: toYaml leaves texts such as = and << unquoted, which Python refuses. */}}
{{- define "selfheal.remediator.configuration" -}}
{{- $config := deepCopy .Values.remediator.config -}}
{{- range $section := list "limits" "drain" -}}
{{- range $key, $value := get $config $section -}}
{{- if kindIs "invalid" $value -}}{{- $_ := unset (get $config $section) $key -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $config.drain.surge -}}{{- $_ := unset $config.drain "surge" -}}{{- end -}}
{{- if not $config.groups -}}{{- $_ := unset $config "groups" -}}{{- end -}}
{{- if not $config.taint -}}{{- $_ := unset $config "taint" -}}{{- end -}}
{{- if not $config.statusPage.enabled -}}{{- $_ := unset $config "statusPage" -}}{{- end -}}
{{- $_ := set $config.lease "name" (printf "%s-remediator" (include "selfheal.fullname" .)) -}}
{{- if include "selfheal.restore" . -}}
{{- $_ := set $config.restore "configMap" (include "selfheal.restore.name" .) -}}
{{- else -}}
{{- $_ := unset $config "restore" -}}
{{- end -}}
{{- $lines := list -}}
{{- range $key, $value := $config -}}
{{- if and $value (kindIs "slice" $value) -}}
{{- $lines = append $lines (printf "%s:" $key) -}}
{{- range $value -}}{{- $lines = append $lines (printf "  - %s" (toJson .)) -}}{{- end -}}
{{- else -}}
{{- $lines = append $lines (printf "%s: %s" $key (toJson $value)) -}}
{{- end -}}
{{- end -}}
{{- include "selfheal.escaped" ($lines | join "\n") -}}
{{- end -}}

{{/* What follows drains by the rules, as a JSON list: `then`, `verify`, `job`. */}}
{{- define "selfheal.remediator.repairs" -}}
{{- $found := list -}}
{{- if .Values.remediator.enabled -}}
{{- $rules := .Values.remediator.config.rules -}}
{{- range .Values.remediator.config.groups -}}{{- $rules = concat $rules (default list .rules) -}}{{- end -}}
{{- range $rules -}}
{{- if .then -}}{{- $found = append $found "then" -}}{{- end -}}
{{- if .verify -}}{{- $found = append $found "verify" -}}{{- end -}}
{{- range concat (default list .then) (list (default dict .verify)) -}}
{{- if hasKey . "job" -}}{{- $found = append $found "job" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | uniq | toJson -}}
{{- end -}}

{{- define "selfheal.remediator.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- {name: CONFIG_FILE, value: /etc/selfheal/remediator.yaml}
- {name: HTTP_PORT, value: "8080"}
- {name: LOG_LEVEL, value: {{ .Values.remediator.logLevel }}}
- {name: LOG_FORMAT, value: {{ .Values.remediator.logFormat }}}
{{- with .Values.remediator.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What the remediator's program reads from files, in each pod that runs it. */}}
{{- define "selfheal.remediator.volumeMounts" -}}
- {name: configuration, mountPath: /etc/selfheal, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- with .Values.remediator.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "selfheal.remediator.volumes" -}}
- name: configuration
  configMap:
    name: {{ printf "%s-remediator" (include "selfheal.fullname" .) | quote }}
- name: tmp
  emptyDir: {}
{{- with .Values.remediator.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
