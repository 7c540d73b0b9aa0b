{{/* Egress rule: name resolution. */}}
{{- define "selfheal.network.dns" -}}
{{- $to := default list .Values.networkPolicy.dnsTo -}}
{{- $ports := default (list 53) .Values.networkPolicy.dnsPorts -}}
{{- if eq (include "selfheal.openshift" .) "true" -}}
{{- /* A policy is about the port of the pod and not of the Service before it. */ -}}
{{- $to = append $to (dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" "openshift-dns"))) -}}
{{- $ports = .Values.networkPolicy.dnsPorts | default (list 53 5353) -}}
{{- end -}}
- to:
    {{- toYaml (uniq $to) | nindent 4 }}
  ports:
    {{- range $ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* Egress rule: the broker. The bundled one is a pod; of one outside only the port is known, and of a
     URI nothing: the usual two, and `broker.port`. */}}
{{- define "selfheal.network.broker" -}}
{{- if .Values.rabbitmq.enabled -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "selfheal.selectorLabels" (dict "root" . "component" "rabbitmq") | nindent 10 }}
  ports:
    - {port: amqp}
{{- else if .Values.broker.secretKeys.uri -}}
- ports:
    {{- range list 5671 5672 (int .Values.broker.port) | uniq }}
    - {port: {{ . }}}
    {{- end }}
{{- else -}}
- ports:
    - {port: {{ .Values.broker.port }}}
{{- end -}}
{{- end -}}

{{/* Egress rule: the model servers, by the ports of their URLs; of one without a URL it is 443. */}}
{{- define "selfheal.network.model" -}}
{{- if .Values.ollama.enabled -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "selfheal.selectorLabels" (dict "root" . "component" "ollama") | nindent 10 }}
  ports:
    - {port: http}
{{- end -}}
{{- $ports := list -}}
{{- range append (values .Values.models) .Values.model -}}
{{- if .baseUrl -}}
{{- $url := urlParse .baseUrl -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "https" | ternary "443" "80")) -}}
{{- else if and (ne .provider "builtin") (not (and $.Values.ollama.enabled (eq .provider "ollama"))) -}}
{{- $ports = append $ports "443" -}}
{{- end -}}
{{- end }}
{{ with uniq $ports | sortAlpha -}}
- ports:
    {{- range . }}
    - {port: {{ . }}}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* Egress rule: the API server, which no selector finds. */}}
{{- define "selfheal.network.apiServer" -}}
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - {port: {{ . }}}
    {{- end }}
{{- end -}}
