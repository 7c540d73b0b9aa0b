{{/* Not empty if the remediator makes deleted objects of this release again. */}}
{{- define "selfheal.restore" -}}
{{- if and .Values.remediator.enabled (default dict .Values.remediator.config.restore).enabled -}}yes{{- end -}}
{{- end -}}

{{- define "selfheal.restore.name" -}}
{{- printf "%s-restore" (include "selfheal.fullname" .) -}}
{{- end -}}

{{/* The objects that are made again, as a JSON list, in the order in which they need each other. They come from the
     templates that render them. Secrets, ConfigMaps and volumes are not among them. */}}
{{- define "selfheal.restore.objects" -}}
{{- $objects := list -}}
{{- range $name := list "worker.serviceaccount" "worker.poddisruptionbudget" "worker.deployment" "worker.horizontalpodautoscaler" "worker.triggerauthentication" "worker.scaledobject" "ollama.serviceaccount" "ollama.poddisruptionbudget" "ollama.service" "ollama.deployment" "ollama.horizontalpodautoscaler" -}}
{{- with include (printf "selfheal.object.%s" $name) $ | fromYaml -}}
{{- $objects = append $objects . -}}
{{- end -}}
{{- end -}}
{{- toJson $objects -}}
{{- end -}}

{{/* What the remediator may do for it, in its own namespace. Only existing objects can be named: `create`, and a list or watch
     by label, are for all of a kind. */}}
{{- define "selfheal.restore.rules" -}}
{{- $resources := dict "ServiceAccount" "serviceaccounts" "Service" "services" "PodDisruptionBudget" "poddisruptionbudgets" "Deployment" "deployments" "HorizontalPodAutoscaler" "horizontalpodautoscalers" "TriggerAuthentication" "triggerauthentications" "ScaledObject" "scaledobjects" -}}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ include "selfheal.restore.name" . | quote }}]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [serviceaccounts, services]
  verbs: [list, watch, create]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch, create]
- apiGroups: [keda.sh]
  resources: [scaledobjects, triggerauthentications]
  verbs: [list, watch, create]
{{- range include "selfheal.restore.objects" . | fromJsonArray }}
- apiGroups: [{{ contains "/" .apiVersion | ternary (splitList "/" .apiVersion | first) "" | quote }}]
  resources: [{{ get $resources .kind }}]
  resourceNames: [{{ .metadata.name | quote }}]
  {{- if eq (include "selfheal.openshift" $) "true" }}
  # OpenShift lets nobody change an object's owners who may not delete it; the remediator does not.
  verbs: [patch, delete]
  {{- else }}
  verbs: [patch]
  {{- end }}
{{- end }}
{{- end -}}

{{- define "selfheal.guards.restore" -}}
{{- $p := list -}}
{{- with .Values.remediator.config.restore -}}
{{- if include "selfheal.restore" $ -}}
{{- if lt (include "selfheal.seconds" .gracePeriod | float64) 5.0 -}}
{{- $p = append $p (printf "remediator.config.restore.gracePeriod is %s, so what an uninstall or upgrade deletes would be made again: set it to 5s at least" .gracePeriod) -}}
{{- end -}}
{{- if not (or $.Values.worker.enabled $.Values.ollama.enabled) -}}
{{- $p = append $p "remediator.config.restore.enabled is true, and this release has neither workers nor Ollama: set it to false, or worker.enabled=true" -}}
{{- end -}}
{{- $size := include "selfheal.restore.objects" $ | len -}}
{{- if gt $size 1000000 -}}
{{- $p = append $p (printf "remediator.config.restore.enabled is true, and the objects to restore have %d bytes, more than a ConfigMap can hold (1 MiB): shorten worker.extraEnv and the like, such as by envFrom with a ConfigMap of your own, or set remediator.config.restore.enabled=false" $size) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}
