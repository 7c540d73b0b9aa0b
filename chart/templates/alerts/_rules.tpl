{{/* What a rule needs and this release has, as a JSON list. */}}
{{- define "selfheal.alerts.parts" -}}
{{- $parts := list "pods" -}}
{{- range $part, $has := dict
  "worker" .Values.worker.enabled
  "remediator" .Values.remediator.enabled
  "rabbitmq" (or .Values.rabbitmq.enabled (ne .Values.alerts.matchers.broker ""))
  "ladder" (ne (include "selfheal.remediator.repairs" .) "[]")
  "restore" (ne (include "selfheal.restore" .) "")
  "keda" (and .Values.worker.enabled (eq (include "selfheal.autoscaler" .) "keda"))
  "autoscaler" (or (and .Values.worker.enabled (has (include "selfheal.autoscaler" .) (list "keda" "hpa"))) (and .Values.ollama.enabled .Values.ollama.autoscaling.enabled))
  "ollama" .Values.ollama.enabled
  "detector" .Values.nodeProblemDetector.enabled
  "deployments" (or .Values.worker.enabled .Values.remediator.enabled .Values.ollama.enabled) -}}
{{- if $has }}{{- $parts = append $parts $part -}}{{- end -}}
{{- end -}}
{{- toJson $parts -}}
{{- end -}}

{{/* What stands for %name% in the rules: a list of pairs, in the order in which they are put in. */}}
{{- define "selfheal.alerts.words" -}}
{{- $m := .Values.alerts.matchers -}}
{{- $o := .Values.alerts.objectives -}}
{{- $pods := "namespace=\"%namespace%\",pod=~\"" -}}
{{- $two := "-[^-]+-[^-]+" -}}
{{- /* How long a first load of the model may take; a server of one's own is not known to take longer than ours by default. */ -}}
{{- $startup := .Values.ollama.enabled | ternary (max 1200 (int .Values.ollama.startupSeconds)) 1200 | int -}}
{{- $keda := eq (include "selfheal.autoscaler" .) "keda" -}}
{{- list
  (list "worker" ($m.worker | default (print $pods "%release%-worker" $two "\"")))
  (list "remediator" ($m.remediator | default (print $pods "%release%-remediator" $two "\"")))
  (list "broker" ($m.broker | default (print $pods "%release%-rabbitmq-[0-9]+\"")))
  (list "pods" ($m.pods | default (print $pods "%release%-(worker|remediator|ollama)" $two "|%release%-rabbitmq-[0-9]+\"")))
  (list "autoscaler" (printf "namespace=\"%%namespace%%\",horizontalpodautoscaler=\"%s%%release%%-worker\"" ($keda | ternary "keda-hpa-" "")))
  (list "autoscalers" "namespace=\"%namespace%\",horizontalpodautoscaler=~\"(keda-hpa-)?%release%-worker|%release%-ollama\"")
  (list "activation" ($keda | ternary (include "selfheal.text" .Values.autoscaling.keda.activationQueueLength) "0"))
  (list "firstLoad" (toString (sub $startup 300)))
  (list "startup" (include "selfheal.alerts.minutes" $startup))
  (list "afterStartup" (include "selfheal.alerts.minutes" (add $startup 300)))
  (list "self" "namespace=\"%namespace%\",release=\"%release%\"")
  (list "namespace" .Release.Namespace)
  (list "release" (include "selfheal.fullname" .))
  (list "detectorNamespace" (include "selfheal.detector.namespace" .))
  (list "queue" .Values.queue.name)
  (list "results" (.Values.queue.results | default (print .Values.queue.name ".results")))
  (list "successBudget" (include "selfheal.alerts.budget" $o.success))
  (list "waitBudget" (include "selfheal.alerts.budget" $o.queueWait))
  (list "waitSeconds" (include "selfheal.text" $o.queueWaitSeconds))
  | toJson -}}
{{- end -}}

{{/* Seconds, as whole minutes and at least as many. */}}
{{- define "selfheal.alerts.minutes" -}}
{{- printf "%dm" (div (add . 59) 60) -}}
{{- end -}}

{{/* What may go wrong under an objective: 0.99 leaves 0.01. */}}
{{- define "selfheal.alerts.budget" -}}
{{- round (subf 1.0 (float64 .)) 6 -}}
{{- end -}}

{{/* Text with all its %name% put in. dict: text, words, threshold and for (texts). */}}
{{- define "selfheal.alerts.fill" -}}
{{- $text := .text | replace "%threshold%" .threshold | replace "%for%" .for -}}
{{- range .words -}}
{{- $text = replace (printf "%%%s%%" (first .)) (last .) $text -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{/* One alert as Prometheus reads it, or nothing when it is switched off. dict: root, rule, words, parts. */}}
{{- define "selfheal.alerts.alert" -}}
{{- $v := .root.Values.alerts -}}
{{- $rule := .rule -}}
{{- $own := default dict (get (default dict $v.rules) $rule.alert) -}}
{{- $on := hasKey $own "enabled" | ternary $own.enabled true -}}
{{- range $rule.needs }}{{- if not (has . $.parts) }}{{- $on = false -}}{{- end -}}{{- end -}}
{{- if $on -}}
{{- $for := $own.for | default (include "selfheal.alerts.fill" (dict "text" $rule.for "words" .words "threshold" "" "for" "")) -}}
{{- $fill := dict "words" .words "threshold" (include "selfheal.text" (hasKey $own "threshold" | ternary $own.threshold (get $rule "threshold"))) "for" $for -}}
{{- $annotations := dict -}}
{{- range $key, $text := merge (dict) (default dict $own.annotations) $rule.annotations -}}
{{- $_ := set $annotations $key (include "selfheal.alerts.fill" (merge (dict "text" $text) $fill)) -}}
{{- end -}}
{{- /* A link that leads nowhere is worse than none. */ -}}
{{- if $v.runbookUrl -}}
{{- $_ := set $annotations "runbook_url" (printf "%s/%s.md" (trimSuffix "/" $v.runbookUrl) $rule.alert) -}}
{{- end -}}
{{- if $v.grafanaUrl -}}
{{- $_ := set $annotations "dashboard_url" (printf "%s/d/%s?viewPanel=%v&var-namespace=%s&var-release=%s" (trimSuffix "/" $v.grafanaUrl) (include "selfheal.dashboards.uid" (dict "root" .root "uid" $rule.dashboard)) $rule.panel .root.Release.Namespace (include "selfheal.fullname" .root)) -}}
{{- end -}}
alert: {{ $rule.alert }}
expr: {{ include "selfheal.alerts.fill" (merge (dict "text" ($own.expr | default $rule.expr)) $fill) | toRawJson }}
for: {{ $for | quote }}
labels:
  {{- $labels := dict "severity" ($own.severity | default $rule.severity) "team" $rule.team "namespace" .root.Release.Namespace "release" (include "selfheal.fullname" .root) }}
  {{- toYaml (merge (dict) (default dict $own.labels) (default dict $v.alertLabels) $labels) | nindent 2 }}
annotations:
  {{- toYaml $annotations | nindent 2 }}
{{- end -}}
{{- end -}}
