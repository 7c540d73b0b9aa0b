{{/* What the values add to the chart's own objects. Each template here that writes fields gets its column (`at`), and
     writes nothing where nothing is added. */}}

{{/* The name of a component's ServiceAccount. dict: account (its `serviceAccount` values), name (of the one that the chart
     makes). As `helm create` has it: without one of the chart's and without a name it is the namespace's `default`. */}}
{{- define "selfheal.serviceAccountName" -}}
{{- .account.name | default (ternary .name "default" .account.create) -}}
{{- end -}}

{{/* The values' settings of a pod as a whole. dict: values (a component's values), at. */}}
{{- define "selfheal.podOptions" -}}
{{- $options := dict -}}
{{- range $key := list "dnsPolicy" "dnsConfig" "hostAliases" "runtimeClassName" -}}
{{- with get $.values $key }}{{- $_ := set $options $key . -}}{{- end -}}
{{- end -}}
{{- with $options }}{{ toYaml . | nindent (int $.at) }}{{- end -}}
{{- end -}}

{{/* `envFrom` of a container. dict: values, at. */}}
{{- define "selfheal.envFrom" -}}
{{- with .values.envFrom }}{{ dict "envFrom" . | toYaml | nindent (int $.at) }}{{- end -}}
{{- end -}}

{{/* `annotations` with those of the values; the chart's own count. dict: own (YAML; may be left out), added, at. */}}
{{- define "selfheal.annotations" -}}
{{- with merge (dict) (default "" .own | fromYaml) (default dict .added) }}{{ dict "annotations" . | toYaml | nindent (int $.at) }}{{- end -}}
{{- end -}}

{{/* Labels of a pod, with those of the values; the chart's own count. dict: root, component, added. */}}
{{- define "selfheal.podLabels" -}}
{{- merge (include "selfheal.selectorLabels" . | fromYaml) (default dict .added) | toYaml -}}
{{- end -}}

{{/* How an endpoint of a PodMonitor is scraped, as fields. dict: root. */}}
{{- define "selfheal.scrape" -}}
{{- with .root.Values.metrics.podMonitor -}}
interval: {{ .interval | quote }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . | quote }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Not empty when the PrometheusRule is made, by either of its two switches. */}}
{{- define "selfheal.alerts.enabled" -}}
{{- if or .Values.alerts.enabled .Values.metrics.prometheusRule.enabled -}}enabled{{- end -}}
{{- end -}}
