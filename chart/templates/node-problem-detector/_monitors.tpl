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

{{/* The scripts of the plugins that have some, as one object: plugin -> file name -> content. */}}
{{- define "selfheal.detector.scripts" -}}
{{- $scripts := dict -}}
{{- range $name, $plugin := .Values.nodeProblemDetector.customPlugins -}}
{{- if and $plugin $plugin.scripts }}{{- $_ := set $scripts $name $plugin.scripts }}{{- end -}}
{{- end -}}
{{- toJson $scripts -}}
{{- end -}}

{{- define "selfheal.nodeProblemDetector.volumeMounts" -}}
- {name: configuration, mountPath: /config, readOnly: true}
- {name: kmsg, mountPath: /dev/kmsg, readOnly: true}
- {name: log, mountPath: /var/log, readOnly: true}
{{- range $name, $_ := include "selfheal.detector.scripts" . | fromJson }}
- {name: plugin-{{ $name }}, mountPath: /plugins/{{ $name }}, readOnly: true}
{{- end }}
{{- with .Values.nodeProblemDetector.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "selfheal.nodeProblemDetector.volumes" -}}
- name: configuration
  configMap:
    name: {{ printf "%s-node-problem-detector" (include "selfheal.fullname" .) | quote }}
- name: kmsg
  hostPath: {path: /dev/kmsg}
- name: log
  hostPath: {path: /var/log}
{{- range $name, $_ := include "selfheal.detector.scripts" . | fromJson }}
- name: plugin-{{ $name }}
  configMap:
    name: {{ printf "%s-plugin-%s" (include "selfheal.fullname" $) $name | quote }}
    defaultMode: 0555
{{- end }}
{{- with .Values.nodeProblemDetector.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
