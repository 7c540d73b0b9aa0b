{{/* The Job's specification. In a rendering without a cluster a password that is made would be another one each time; the
     Job makes it once, in the cluster. */}}
{{- define "selfheal.rabbitmq.passwords.spec" -}}
{{- $program := or .Values.worker.enabled (not .Values.remediator.enabled) | ternary .Values.worker .Values.remediator -}}
{{- $uris := include "selfheal.rabbitmq.uris" (dict "root" . "user" "{user}" "password" "{password}" "monitorUser" "{user}" "monitorPassword" "{password}") | fromJson -}}
backoffLimit: {{ .Values.topology.backoffLimit | toJson }}
template:
  metadata:
    labels:
      {{- include "selfheal.podLabels" (dict "root" . "component" "rabbitmq-passwords" "added" .Values.topology.podLabels) | nindent 6 }}
    {{- $own := "" }}
    {{- with .Values.rabbitmq.auth }}
    {{- if or .password .monitorPassword }}
    {{- /* One that was given is part of what is made. */}}
    {{- $own = list .password .monitorPassword | toJson | sha256sum | trunc 16 | quote | printf "checksum/passwords: %s" }}
    {{- end }}
    {{- end }}
    {{- include "selfheal.annotations" (dict "own" $own "added" .Values.topology.podAnnotations "at" 4) }}
  spec:
    serviceAccountName: {{ include "selfheal.rabbitmq.fullname" . }}-passwords
    automountServiceAccountToken: true
    enableServiceLinks: false
    {{- with include "selfheal.imagePullSecrets" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- include "selfheal.podOptions" (dict "values" $program "at" 4) }}
    restartPolicy: OnFailure
    securityContext:
      {{- include "selfheal.securityContext" (dict "root" . "context" $program.podSecurityContext) | nindent 6 }}
    {{- include "selfheal.placement" (dict "root" . "component" "rabbitmq-passwords" "values" (pick $program "nodeSelector" "tolerations")) | trim | nindent 4 }}
    containers:
      - name: passwords
        image: {{ include "selfheal.image" (dict "root" . "image" $program.image) | quote }}
        imagePullPolicy: {{ $program.image.pullPolicy }}
        command: [python3, /etc/selfheal/passwords/passwords.py]
        env:
          - {name: NAMESPACE, value: {{ .Release.Namespace | quote }}}
          - {name: SECRET, value: {{ include "selfheal.rabbitmq.fullname" . | quote }}}
          - {name: DEFINITIONS, value: {{ include "selfheal.rabbitmq.definitions.byKey" . | quote }}}
          - {name: URIS, value: {{ dict "amqp-uri" (list (get $uris "amqp-uri") "username" "password") "http-uri" (list (get $uris "http-uri") "monitor-username" "monitor-password") | toJson | quote }}}
        resources:
          {{- toYaml .Values.topology.resources | nindent 10 }}
        securityContext:
          {{- include "selfheal.securityContext" (dict "root" . "context" $program.securityContext) | nindent 10 }}
        volumeMounts:
          - {name: program, mountPath: /etc/selfheal/passwords, readOnly: true}
          - {name: tmp, mountPath: /tmp}
    volumes:
      - name: program
        configMap: {name: {{ printf "%s-passwords" (include "selfheal.rabbitmq.fullname" .) | quote }}}
      - name: tmp
        emptyDir: {}
{{- end -}}
