{{/* The prefix of every object's name. With 35 characters the pods of RELEASE-remediator still have a dash before their
     random end, by which alerts and dashboards know them: Kubernetes cuts what stands before that end to 58. The name of a
     Service begins with a letter (Kubernetes below 1.36), that of a release need not. */}}
{{- define "selfheal.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $own := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- $prefix := .Values.fullnameOverride | default $own -}}
{{- if regexMatch "^[0-9]" $prefix }}{{- $prefix = printf "selfheal-%s" $prefix }}{{- end -}}
{{- include "selfheal.shortened" (dict "name" $prefix "longest" 35) -}}
{{- end -}}

{{/* A name that fits. A longer one ends in a hash, because two that differ only in what is cut off must not become one; so
     does one with dots, which the name of a Service cannot have. dict: name, longest. */}}
{{- define "selfheal.shortened" -}}
{{- if or (gt (len .name) .longest) (contains "." .name) -}}
{{- printf "%s-%s" (.name | replace "." "-" | trunc (sub .longest 9 | int) | trimAll "-") (sha256sum .name | trunc 8) -}}
{{- else -}}
{{- trimSuffix "-" .name -}}
{{- end -}}
{{- end -}}

{{/* The release; in an umbrella chart that has this one twice, by two aliases, each for itself. */}}
{{- define "selfheal.instance" -}}
{{- if eq .Chart.Name "selfheal" -}}
{{- .Release.Name -}}
{{- else -}}
{{- include "selfheal.shortened" (dict "name" (printf "%s-%s" .Release.Name .Chart.Name) "longest" 63) -}}
{{- end -}}
{{- end -}}

{{/* Labels that select a component's pods. dict: root, component. Never changes in a release's life. */}}
{{- define "selfheal.selectorLabels" -}}
app.kubernetes.io/name: selfheal
app.kubernetes.io/instance: {{ include "selfheal.instance" .root | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. dict: root, component, more (labels by which others select it; may be left out), added (the
     values' own labels of this object; may be left out). Each key is there
     once: what selects it counts most, then the chart's own. */}}
{{- define "selfheal.labels" -}}
{{- $own := include "selfheal.ownLabels" . | fromYaml -}}
{{- merge (dict) (default dict .more) $own (default dict .added) (default dict .root.Values.commonLabels) | toYaml -}}
{{- end -}}

{{/* What the chart itself says of an object. The chart's version is here and never in a pod template: a new version of the
     chart alone restarts no pod. */}}
{{- define "selfheal.ownLabels" -}}
{{ include "selfheal.selectorLabels" . }}
app.kubernetes.io/part-of: selfheal
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Not empty when a cluster is there to be asked. Asked for is what whoever installs into a namespace may read: a lookup
     that is forbidden fails the whole rendering. A namespace that Helm is still to make (`--create-namespace`) has nothing in
     it to be seen: who may make one may read kube-system, and only a cluster tells kinds beside groups. */}}
{{- define "selfheal.seesCluster" -}}
{{- if lookup "v1" "ServiceAccount" .Release.Namespace "" -}}
seen
{{- else if .Capabilities.APIVersions.Has "v1/Secret" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}seen{{- end -}}
{{- end -}}
{{- end -}}

{{- define "selfheal.detector.namespace" -}}
{{- .Values.nodeProblemDetector.namespace | default (printf "%s-node-problem-detector" (include "selfheal.fullname" .)) -}}
{{- end -}}

{{/* Not empty when the release makes the detector's namespace: its own; a named one, which is often somebody's already, only
     when the values say so. */}}
{{- define "selfheal.detector.makesNamespace" -}}
{{- with .Values.nodeProblemDetector -}}
{{- $wanted := kindIs "invalid" .createNamespace | ternary (empty .namespace) .createNamespace -}}
{{- if and .enabled $wanted (ne (include "selfheal.detector.namespace" $) $.Release.Namespace) -}}yes{{- end -}}
{{- end -}}
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
