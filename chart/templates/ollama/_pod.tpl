{{/* What the init container and the server share. */}}
{{- define "selfheal.ollama.container" -}}
image: {{ include "selfheal.image" (dict "root" . "image" .Values.ollama.image) | quote }}
imagePullPolicy: {{ .Values.ollama.image.pullPolicy }}
env:
  {{- include "selfheal.ollama.env" . | trim | nindent 2 }}
{{- include "selfheal.envFrom" (dict "values" .Values.ollama "at" 0) }}
securityContext:
  {{- include "selfheal.securityContext" (dict "root" . "context" .Values.ollama.securityContext) | nindent 2 }}
volumeMounts:
  {{- include "selfheal.ollama.volumeMounts" . | nindent 2 }}
{{- end -}}

{{- define "selfheal.ollama.volumeMounts" -}}
{{- if not .Values.ollama.modelsInImage }}
- {name: models, mountPath: /models}
{{- end }}
- {name: home, mountPath: /home/ollama}
- {name: tmp, mountPath: /tmp}
- {name: scripts, mountPath: /scripts, readOnly: true}
{{- with include "selfheal.ca.volumeMounts" . }}
{{ . }}
{{- end }}
{{- with .Values.ollama.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "selfheal.ollama.volumes" -}}
{{- $ollama := .Values.ollama -}}
{{- if not $ollama.modelsInImage }}
- name: models
  {{- if $ollama.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ $ollama.persistence.existingClaim | default (printf "%s-ollama" (include "selfheal.fullname" .)) | quote }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
- name: home
  emptyDir: {}
- name: tmp
  emptyDir: {}
- name: scripts
  configMap:
    name: {{ printf "%s-ollama" (include "selfheal.fullname" .) | quote }}
    defaultMode: 0555
{{- with include "selfheal.ca.volumes" . }}
{{ . }}
{{- end }}
{{- with $ollama.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Not empty if the volume cannot be mounted on two nodes at once; unknown for an existing claim. */}}
{{- define "selfheal.ollama.ownVolume" -}}
{{- with .Values.ollama.persistence -}}
{{- if and .enabled (or .existingClaim (not (has "ReadWriteMany" .accessModes))) -}}own{{- end -}}
{{- end -}}
{{- end -}}

{{- define "selfheal.ollama.resources" -}}
{{- $resources := deepCopy (default dict .Values.ollama.resources) -}}
{{- if gt (int .Values.ollama.gpu.count) 0 -}}
{{- $limits := default dict $resources.limits -}}
{{- $_ := set $limits .Values.ollama.gpu.resource (int .Values.ollama.gpu.count) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "selfheal.ollama.env" -}}
- {name: HOME, value: /home/ollama}
- {name: OLLAMA_MODELS, value: {{ .Values.ollama.modelsInImage | default "/models" | quote }}}
{{- if or .Values.ollama.modelsInImage .Values.ollama.persistence.enabled }}
# A server that starts removes what no model needs yet. A folder of the image cannot be written to, and on a shared
# volume that would be what another replica is pulling.
- {name: OLLAMA_NOPRUNE, value: "1"}
{{- end }}
# All addresses, including IPv6: 0.0.0.0 is IPv4 only.
- {name: OLLAMA_HOST, value: ":11434"}
- {name: OLLAMA_NUM_PARALLEL, value: {{ include "selfheal.text" .Values.ollama.parallel | quote }}}
- {name: OLLAMA_KEEP_ALIVE, value: {{ .Values.ollama.keepAlive | quote }}}
{{- with .Values.model.contextTokens }}
- {name: OLLAMA_CONTEXT_LENGTH, value: {{ include "selfheal.text" . | quote }}}
{{- end }}
{{- with include "selfheal.ca.env" . }}
{{ . }}
{{- end }}
{{- with .Values.ollama.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
