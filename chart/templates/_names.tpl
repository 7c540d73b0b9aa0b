{{/* The prefix of every object's name. */}}
{{- define "selfheal.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that select a component's pods. dict: root, component. Never changes in a release's life. */}}
{{- define "selfheal.selectorLabels" -}}
app.kubernetes.io/name: selfheal
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. dict: root, component. The chart's version is here and never in a pod template:
     a new version of the chart alone restarts no pod. */}}
{{- define "selfheal.labels" -}}
{{ include "selfheal.selectorLabels" . }}
app.kubernetes.io/part-of: selfheal
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "selfheal.detector.namespace" -}}
{{- .Values.nodeProblemDetector.namespace | default (printf "%s-node-problem-detector" (include "selfheal.fullname" .)) -}}
{{- end -}}

{{/* Which autoscaler runs: keda, hpa or none. */}}
{{- define "selfheal.autoscaler" -}}
{{- if ne .Values.autoscaling.mode "auto" -}}
{{- .Values.autoscaling.mode -}}
{{- else if .Capabilities.APIVersions.Has "keda.sh/v1alpha1" -}}
keda
{{- else -}}
hpa
{{- end -}}
{{- end -}}
