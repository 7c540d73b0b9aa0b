{{- define "selfheal.topology.spec" -}}
backoffLimit: {{ .Values.topology.backoffLimit | toJson }}
template:
  metadata:
    labels:
      {{- include "selfheal.podLabels" (dict "root" . "component" "topology" "added" .Values.topology.podLabels) | nindent 6 }}
    {{- include "selfheal.annotations" (dict "added" .Values.topology.podAnnotations "at" 4) }}
  spec:
    serviceAccountName: {{ include "selfheal.serviceAccountName" (dict "account" .Values.worker.serviceAccount "name" (printf "%s-worker" (include "selfheal.fullname" .))) | quote }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- with include "selfheal.imagePullSecrets" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- include "selfheal.podOptions" (dict "values" .Values.worker "at" 4) }}
    restartPolicy: OnFailure
    securityContext:
      {{- include "selfheal.securityContext" (dict "root" . "context" .Values.worker.podSecurityContext) | nindent 6 }}
    {{- include "selfheal.placement" (dict "root" . "component" "topology" "values" (pick .Values.worker "nodeSelector" "tolerations")) | trim | nindent 4 }}
    containers:
      - name: topology
        image: {{ include "selfheal.image" (dict "root" . "image" .Values.worker.image) | quote }}
        imagePullPolicy: {{ .Values.worker.image.pullPolicy }}
        args: [topology]
        env:
          {{- include "selfheal.broker.env" . | trim | nindent 10 }}
          {{- include "selfheal.queue.env" . | trim | nindent 10 }}
          - {name: LOG_FORMAT, value: {{ .Values.worker.logFormat }}}
        resources:
          {{- toYaml .Values.topology.resources | nindent 10 }}
        securityContext:
          {{- include "selfheal.securityContext" (dict "root" . "context" .Values.worker.securityContext) | nindent 10 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
          {{- include "selfheal.broker.volumeMounts" . | nindent 10 }}
    volumes:
      - name: tmp
        emptyDir: {}
      {{- include "selfheal.broker.volumes" . | nindent 6 }}
{{- end -}}
