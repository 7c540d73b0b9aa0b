{{/* Egress rule: name resolution. */}}
{{- define "selfheal.network.dns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dnsTo | nindent 4 }}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}

{{/* Egress rule: the broker. The bundled one is a pod; of one outside only the port is known, and of a URI nothing. */}}
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
    - {port: 5671}
    - {port: 5672}
{{- else -}}
- ports:
    - {port: {{ .Values.broker.port }}}
{{- end -}}
{{- end -}}

{{/* Egress rule: the model server, by the port of its URL. */}}
{{- define "selfheal.network.model" -}}
{{- if .Values.ollama.enabled -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "selfheal.selectorLabels" (dict "root" . "component" "ollama") | nindent 10 }}
  ports:
    - {port: http}
{{- else if .Values.model.baseUrl -}}
{{- $url := urlParse .Values.model.baseUrl -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "https" | ternary "443" "80") -}}
- ports:
    - {port: {{ $port }}}
{{- else if ne .Values.model.provider "builtin" -}}
- ports:
    - {port: 443}
{{- end -}}
{{- end -}}

{{/* Egress rule: the API server, which no selector finds. */}}
{{- define "selfheal.network.apiServer" -}}
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - {port: {{ . }}}
    {{- end }}
{{- end -}}
