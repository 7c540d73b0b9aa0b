{{/* What `key` is in more than one of the items, as a JSON list. dict: items, key. */}}
{{- define "selfheal.repeated" -}}
{{- $seen := list -}}
{{- $found := list -}}
{{- range .items -}}
{{- $value := get . $.key -}}
{{- if has $value $seen }}{{- $found = append $found $value }}{{- end -}}
{{- $seen = append $seen $value -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* Problems of additions to pods. Kubernetes tells the entries of these lists apart by a key, and refuses one that is there
     twice, Helm 4 before it sends them. `test` is in the pod of `helm test`, which has the workers' init containers. */}}
{{- define "selfheal.guards.additions" -}}
{{- $p := list -}}
{{- $taken := dict "worker" (list "worker" "test") "rabbitmq" (list "rabbitmq" "definitions") "ollama" (list "ollama" "models") "remediator" (list "remediator") "nodeProblemDetector" (list "node-problem-detector") -}}
{{- range $key := list "worker" "rabbitmq" "ollama" "remediator" "nodeProblemDetector" -}}
{{- $values := get $.Values $key -}}
{{- if $values.enabled -}}
{{- if and (eq $values.dnsPolicy "None") (not (default dict $values.dnsConfig).nameservers) -}}
{{- $p = append $p (printf "%s.dnsPolicy is None, and then the pods have no name server: set %s.dnsConfig.nameservers" $key $key) -}}
{{- end -}}
{{- $seen := list -}}
{{- range concat (default list $values.initContainers) (default list $values.extraContainers) -}}
{{- if not .name -}}
{{- $p = append $p (printf "%s.initContainers or %s.extraContainers has a container without a name: give it one" $key $key) -}}
{{- else if has .name (get $taken $key) -}}
{{- $p = append $p (printf "%s.initContainers or %s.extraContainers has the name %s, which is that of a container of the chart: give it another one" $key $key .name) -}}
{{- else if has .name $seen -}}
{{- $p = append $p (printf "%s.initContainers and %s.extraContainers have the name %s twice: give each container a name of its own" $key $key .name) -}}
{{- end -}}
{{- $seen = append $seen .name -}}
{{- end -}}
{{- $volumes := include (printf "selfheal.%s.volumes" $key) $ | fromYamlArray -}}
{{- if and (eq $key "rabbitmq") $values.persistence.enabled }}{{- $volumes = prepend $volumes (dict "name" "data") }}{{- end -}}
{{- range include "selfheal.repeated" (dict "items" $volumes "key" "name") | fromJsonArray -}}
{{- $p = append $p (printf "%s.extraVolumes has the name %s, which another volume of its pods has: give it another one" $key .) -}}
{{- end -}}
{{- $mounts := include (printf "selfheal.%s.volumeMounts" $key) $ | fromYamlArray -}}
{{- range include "selfheal.repeated" (dict "items" $mounts "key" "mountPath") | fromJsonArray -}}
{{- $p = append $p (printf "%s.extraVolumeMounts has the mountPath %s, where something is mounted already: use another one" $key .) -}}
{{- end -}}
{{- range include "selfheal.repeated" (dict "items" (default list $values.hostAliases) "key" "ip") | fromJsonArray -}}
{{- $p = append $p (printf "%s.hostAliases has %s twice: give all its host names in one entry" $key .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson (uniq $p) -}}
{{- end -}}

{{/* Problems of the ServiceAccounts. */}}
{{- define "selfheal.guards.accounts" -}}
{{- $p := list -}}
{{- range $key := list "remediator" "nodeProblemDetector" -}}
{{- $values := get $.Values $key -}}
{{- if and $values.enabled (not $values.serviceAccount.create) (has $values.serviceAccount.name (list "" "default")) -}}
{{- $p = append $p (printf "%s.serviceAccount.create is false and no account is named: its rights would go to the namespace's account `default`, which every pod without an account of its own has. Set %s.serviceAccount.name" $key $key) -}}
{{- end -}}
{{- end -}}
{{- $seen := dict -}}
{{- range $key := list "worker" "rabbitmq" "ollama" "remediator" -}}
{{- $values := get $.Values $key -}}
{{- with $values.serviceAccount.name -}}
{{- if and $values.enabled $values.serviceAccount.create -}}
{{- if hasKey $seen . -}}
{{- $p = append $p (printf "%s.serviceAccount.name and %s.serviceAccount.name are both %s: set `create: false` for one of them" (get $seen .) $key .) -}}
{{- end -}}
{{- $_ := set $seen . $key -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* Problems of scraping and dashboards. */}}
{{- define "selfheal.guards.monitors" -}}
{{- $p := list -}}
{{- with .Values.metrics.podMonitor -}}
{{- if and .enabled .scrapeTimeout -}}
{{- if gt (include "selfheal.seconds" .scrapeTimeout | float64) (include "selfheal.seconds" .interval | float64) -}}
{{- $p = append $p (printf "metrics.podMonitor.scrapeTimeout (%s) is longer than metrics.podMonitor.interval (%s), which Prometheus refuses: lower it" .scrapeTimeout .interval) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.dashboards -}}
{{- if .grafanaOperator.enabled -}}
{{- if not .enabled -}}
{{- $p = append $p "dashboards.grafanaOperator.enabled is true and dashboards.enabled is false: the operator reads the dashboards from the ConfigMaps, set dashboards.enabled=true" -}}
{{- end -}}
{{- if not (or (default dict .grafanaOperator.instanceSelector).matchLabels (default dict .grafanaOperator.instanceSelector).matchExpressions) -}}
{{- $p = append $p "dashboards.grafanaOperator.instanceSelector selects nothing: name your Grafana by its labels, as {matchLabels: {dashboards: grafana}}" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}
