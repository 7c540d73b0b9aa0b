{{/* The certificate authorities that clients of model servers and of Ollama's registry trust, from `model.ca`: nothing without
     one. The file stands for the image's own list, hence "a bundle" in the value's description. */}}
{{- define "selfheal.ca.env" -}}
{{- with .Values.model.ca -}}
{{- if or .existingSecret .existingConfigMap -}}
- {name: SSL_CERT_FILE, value: /etc/selfheal/ca/ca.crt}
# Clients that use requests read this one alone.
- {name: REQUESTS_CA_BUNDLE, value: /etc/selfheal/ca/ca.crt}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "selfheal.ca.volumeMounts" -}}
{{- with .Values.model.ca -}}
{{- if or .existingSecret .existingConfigMap -}}
- {name: ca, mountPath: /etc/selfheal/ca, readOnly: true}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "selfheal.ca.volumes" -}}
{{- with .Values.model.ca -}}
{{- if .existingSecret -}}
- name: ca
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: 0440
    items: [{key: {{ .key | quote }}, path: ca.crt}]
{{- else if .existingConfigMap -}}
- name: ca
  configMap:
    name: {{ .existingConfigMap | quote }}
    items: [{key: {{ .key | quote }}, path: ca.crt}]
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Two places for one file. */}}
{{- define "selfheal.guards.ca" -}}
{{- $p := list -}}
{{- with .Values.model.ca -}}
{{- if and .existingSecret .existingConfigMap -}}
{{- $p = append $p (printf "model.ca.existingSecret is %s and model.ca.existingConfigMap is %s: set one of the two" .existingSecret .existingConfigMap) -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}
