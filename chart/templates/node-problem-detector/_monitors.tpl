{{/* The log monitors and plugins that are not switched off, as one object: file name -> content. */}}
{{- define "selfheal.detector.files" -}}
{{- $files := dict -}}
{{- range $name, $monitor := .Values.nodeProblemDetector.systemLogMonitors -}}
{{- if $monitor -}}{{- $_ := set $files (printf "%s.json" $name) (toPrettyJson $monitor) -}}{{- end -}}
{{- end -}}
{{- range $name, $plugin := .Values.nodeProblemDetector.customPlugins -}}
{{- if $plugin -}}{{- $_ := set $files (printf "%s.json" $name) (toPrettyJson $plugin.config) -}}{{- end -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{/* Paths of the monitors' files, joined by commas. dict: monitors (name -> anything that is not null). */}}
{{- define "selfheal.detector.paths" -}}
{{- $paths := list -}}
{{- range $name, $monitor := .monitors -}}
{{- if $monitor -}}{{- $paths = append $paths (printf "/config/%s.json" $name) -}}{{- end -}}
{{- end -}}
{{- $paths | join "," -}}
{{- end -}}

{{/* The conditions that the monitors set, joined by commas. */}}
{{- define "selfheal.detector.conditions" -}}
{{- $conditions := list -}}
{{- range $monitor := .Values.nodeProblemDetector.systemLogMonitors -}}
{{- range (default dict $monitor).conditions -}}{{- $conditions = append $conditions .type -}}{{- end -}}
{{- end -}}
{{- range $plugin := .Values.nodeProblemDetector.customPlugins -}}
{{- range (default dict (default dict $plugin).config).conditions -}}{{- $conditions = append $conditions .type -}}{{- end -}}
{{- end -}}
{{- $conditions | uniq | sortAlpha | join "," -}}
{{- end -}}

{{- define "selfheal.nodeProblemDetector.env" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- with .Values.nodeProblemDetector.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
