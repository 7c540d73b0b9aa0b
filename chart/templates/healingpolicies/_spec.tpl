{{/* Whether a component's policy is made. dict: root, values (the component's). A remediator of another release acts on it
     too; only one of this release that is configured to ignore policies makes it pointless. An install in which the API
     server does not know the type is a dry run, or one with --skip-crds: Helm makes the type before it renders. */}}
{{- define "selfheal.healingPolicy.made" -}}
{{- $v := .root.Values -}}
{{- $wanted := and $v.healingPolicies.enabled .values.enabled .values.healingPolicy.enabled -}}
{{- $blind := and $v.remediator.enabled (not $v.remediator.config.policies.enabled) -}}
{{- if and $wanted (not $blind) (ne (include "selfheal.healingPolicy.unknown" .root) "install") -}}made{{- end -}}
{{- end -}}

{{/* `install` or `upgrade` if a cluster can be read and does not know the type, otherwise empty. */}}
{{- define "selfheal.healingPolicy.unknown" -}}
{{- if and (include "selfheal.seesCluster" .) (not (.Capabilities.APIVersions.Has "selfheal.dev/v1alpha1/HealingPolicy")) -}}
{{- .Release.IsUpgrade | ternary "upgrade" "install" -}}
{{- end -}}
{{- end -}}

{{/* Seconds after which a worker with work in flight and no progress counts as hung, as a duration; empty: not checked. By
     default its own liveness probe is given the time to find a hung call first. */}}
{{- define "selfheal.worker.noProgressFor" -}}
{{- with .Values.worker.healingPolicy.unhealthyWhen -}}
{{- if kindIs "invalid" .noProgressFor -}}
{{- printf "%ds" (addf (float64 $.Values.model.deadlineSeconds) 60.0 | ceil | int) -}}
{{- else -}}
{{- .noProgressFor -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The spec of a policy. dict: root, component, values (a `healingPolicy`), unhealthyWhen, progress (may be left out). */}}
{{- define "selfheal.healingPolicy.spec" -}}
selector:
  matchLabels:
    {{- include "selfheal.selectorLabels" . | nindent 4 }}
healthThreshold: {{ .values.healthThreshold }}
failureThreshold: {{ .values.failureThreshold | toJson }}
unhealthyWhen:
  {{- toYaml .unhealthyWhen | nindent 2 }}
{{- with .progress }}
progress:
  {{- toYaml . | nindent 2 }}
{{- end }}
restart:
  {{- toYaml .values.restart | nindent 2 }}
paused: {{ .values.paused }}
{{- end -}}

{{/* What is set of an `unhealthyWhen`, as JSON: neither null, nor empty, nor false. */}}
{{- define "selfheal.healingPolicy.set" -}}
{{- $set := dict -}}
{{- range $key, $value := . -}}
{{- if $value -}}{{- $_ := set $set $key $value -}}{{- end -}}
{{- end -}}
{{- toJson $set -}}
{{- end -}}
