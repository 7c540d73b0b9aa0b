{{/* Reference of an image. dict: root, image ({repository, tag, digest}). A digest wins over the tag. */}}
{{- define "selfheal.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.global.imageRegistry -}}
{{- $parts := splitList "/" $repository -}}
{{- if and (gt (len $parts) 1) (or (contains "." (first $parts)) (contains ":" (first $parts)) (eq (first $parts) "localhost")) -}}
{{- $repository = rest $parts | join "/" -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (include "selfheal.text" (.image.tag | default .root.Chart.AppVersion)) -}}
{{- end -}}
{{- end -}}

{{/* The names of the image pull secrets, as JSON. */}}
{{- define "selfheal.imagePullSecretNames" -}}
{{- $names := list -}}
{{- range concat (.Values.global.imagePullSecrets | default list) (.Values.imagePullSecrets | default list) -}}
{{- if kindIs "map" . }}{{- $names = append $names .name -}}{{- else }}{{- $names = append $names . -}}{{- end -}}
{{- end -}}
{{- uniq $names | toJson -}}
{{- end -}}

{{- define "selfheal.imagePullSecrets" -}}
{{- with include "selfheal.imagePullSecretNames" . | fromJsonArray }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A component's `podSecurityContext` or `securityContext` as YAML. dict: root, context. A key that is null is left out, and
     on OpenShift the ids, which its security context constraints assign from the namespace's range. */}}
{{- define "selfheal.securityContext" -}}
{{- $context := dict -}}
{{- $assigned := ternary (list "runAsUser" "runAsGroup" "fsGroup") list (eq (include "selfheal.openshift" .root) "true") -}}
{{- range $key, $value := .context -}}
{{- if not (or (kindIs "invalid" $value) (has $key $assigned)) -}}
{{- $_ := set $context $key $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/* "true" when pods are made for OpenShift. */}}
{{- define "selfheal.openshift" -}}
{{- $adapt := .Values.global.compatibility.openshift.adaptSecurityContext -}}
{{- or (eq $adapt "force") (and (eq $adapt "auto") (.Capabilities.APIVersions.Has "security.openshift.io/v1")) -}}
{{- end -}}

{{/* Where pods may run. dict: root, component, values (a component's values). */}}
{{- define "selfheal.placement" -}}
{{- /* The images are for Linux only. */}}
nodeSelector:
  {{- merge (dict) (default dict .values.nodeSelector) (dict "kubernetes.io/os" "linux") | toYaml | nindent 2 }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- if .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else if .values.spreadOverNodes }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "selfheal.selectorLabels" . | nindent 8 }}
    # Pods of an old revision that are on their way out do not count.
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end -}}

{{/* The system's own priority classes that pods of this release have, as JSON: namespace -> classes. Everywhere but in
     kube-system a cluster may let them in by a quota only. */}}
{{- define "selfheal.criticalClasses" -}}
{{- $found := dict -}}
{{- range $key := list "worker" "rabbitmq" "ollama" "remediator" "nodeProblemDetector" -}}
{{- $values := get $.Values $key -}}
{{- $namespace := ternary (include "selfheal.detector.namespace" $) $.Release.Namespace (eq $key "nodeProblemDetector") -}}
{{- $class := default "" $values.priorityClassName -}}
{{- if and $values.enabled (ne $namespace "kube-system") (has $class (list "system-cluster-critical" "system-node-critical")) -}}
{{- $_ := set $found $namespace (append (get $found $namespace | default list) $class | uniq | sortAlpha) -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* A number or text as text. A number is never in the form 1e+06, which toString gives. */}}
{{- define "selfheal.text" -}}
{{- if kindIs "string" . -}}{{- . -}}{{- else -}}{{- toJson . -}}{{- end -}}
{{- end -}}

{{/* JSON as YAML: without the control characters that JSON leaves as they are and YAML does not allow. */}}
{{- define "selfheal.escaped" -}}
{{- $text := . -}}
{{- range untilStep 127 160 1 -}}{{- $text = replace (printf "%c" .) (printf "\\u%04x" .) $text -}}{{- end -}}
{{- $text -}}
{{- end -}}

{{/* Texts by name, as YAML. toYaml gives nothing at all, and no error, if one contains such a control character. */}}
{{- define "selfheal.texts" -}}
{{- toYaml . | default (toJson . | include "selfheal.escaped") -}}
{{- end -}}
