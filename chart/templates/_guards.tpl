{{/* All problems of the values, as a JSON list of sentences: what is wrong, and what to set. */}}
{{- define "selfheal.guards" -}}
{{- $problems := list -}}
{{- range $part := list "release" "cluster" "environment" "additions" "accounts" "monitors" "labels" "autoscaling" "budgets" "grace" "priority" "broker" "queue" "model" "ca" "ollama" "healing" "remediator" "steps" "restore" "lease" "rules" "detector" "alerts" -}}
{{- $problems = concat $problems (include (printf "selfheal.guards.%s" $part) $ | fromJsonArray) -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- define "selfheal.guards.release" -}}
{{- $p := list -}}
{{- if not (or .Values.worker.enabled .Values.rabbitmq.enabled .Values.ollama.enabled .Values.remediator.enabled .Values.nodeProblemDetector.enabled) -}}
{{- $p = append $p "nothing is enabled: set worker.enabled, rabbitmq.enabled, remediator.enabled or nodeProblemDetector.enabled" -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* Checks that need a cluster; without one (`helm template`) they report nothing. */}}
{{- define "selfheal.guards.cluster" -}}
{{- $p := list -}}
{{- if include "selfheal.seesCluster" . -}}
{{- range $component, $key := dict "remediator" "remediator" "node-problem-detector" "nodeProblemDetector" -}}
{{- if (get $.Values $key).enabled -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "").items -}}
{{- $labels := default dict .metadata.labels -}}
{{- $owner := default dict .metadata.annotations -}}
{{- $theirs := printf "%s/%s" (get $owner "meta.helm.sh/release-namespace") (get $owner "meta.helm.sh/release-name") -}}
{{- if and (eq (get $labels "app.kubernetes.io/name") "selfheal") (eq (get $labels "app.kubernetes.io/component") $component) (ne $theirs (printf "%s/%s" $.Release.Namespace $.Release.Name)) -}}
{{- $p = append $p (printf "the release %s already runs the %s of this cluster, and there can be only one: set %s.enabled=false" $theirs $component $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if include "selfheal.guards.noStorageClass" . -}}
{{- $p = append $p "this cluster has no default storage class, so the broker's volume would stay Pending: set rabbitmq.persistence.storageClass (to - for a volume that you made by hand), or rabbitmq.persistence.enabled=false for a broker without a volume" -}}
{{- end -}}
{{- if .Values.remediator.enabled -}}
{{- $limits := .Values.remediator.config.limits -}}
{{- $held := max (hasSuffix "%" (toString $limits.maxUnavailable) | ternary 0 $limits.maxUnavailable | int) (int $limits.minAllowed) | int -}}
{{- if and (gt $held 1) (kindIs "invalid" $limits.maxAllowed) -}}
{{- $nodes := len (lookup "v1" "Node" "" "").items -}}
{{- if ge $held $nodes -}}
{{- $p = append $p (printf "remediator.config.limits lets it cordon %d nodes (maxUnavailable, minAllowed), and this cluster has %d: one bad rule could empty all of it; set both lower, or maxUnavailable to a percentage of at most 50%%" $held $nodes) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.podMonitor.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- $p = append $p "metrics.podMonitor.enabled is true, and this cluster has no Prometheus operator (no API monitoring.coreos.com/v1): install it first, or set metrics.podMonitor.enabled=false" -}}
{{- end -}}
{{- if and .Values.verticalPodAutoscaler.enabled (not (.Capabilities.APIVersions.Has "autoscaling.k8s.io/v1")) -}}
{{- $p = append $p "verticalPodAutoscaler.enabled is true, and this cluster has no vertical pod autoscaler (no API autoscaling.k8s.io/v1): install it first, or set verticalPodAutoscaler.enabled=false" -}}
{{- end -}}
{{- if and .Values.worker.enabled (eq .Values.autoscaling.mode "keda") (not (.Capabilities.APIVersions.Has "keda.sh/v1alpha1")) -}}
{{- $p = append $p "autoscaling.mode=keda, and this cluster has no KEDA (no API keda.sh/v1alpha1): install KEDA first, or set autoscaling.mode=hpa with autoscaling.minReplicas=1, or autoscaling.mode=none" -}}
{{- end -}}
{{- if and .Values.worker.enabled (eq (include "selfheal.autoscaler" .) "keda") -}}
{{- with lookup "autoscaling/v2" "HorizontalPodAutoscaler" .Release.Namespace (printf "%s-worker" (include "selfheal.fullname" .)) -}}
{{- $p = append $p (printf "the workers of this release are scaled by its HorizontalPodAutoscaler, and KEDA refuses a second autoscaler: upgrade once with autoscaling.mode=none and worker.replicas=%d (their number now), then with autoscaling.mode=keda" (dig "status" "currentReplicas" 1 . | int)) -}}
{{- end -}}
{{- end -}}
{{- $p = concat $p (include "selfheal.guards.fromZero" . | fromJsonArray) -}}
{{- $p = concat $p (include "selfheal.guards.managementKeys" . | fromJsonArray) -}}
{{- $p = concat $p (include "selfheal.guards.brokerKeys" . | fromJsonArray) -}}
{{- if and .Values.worker.enabled (eq (include "selfheal.autoscaler" .) "keda") -}}
{{- $definition := include "selfheal.keda.definition" . | fromJson -}}
{{- $p = concat $p (include "selfheal.guards.keda" (dict "root" . "definition" $definition) | fromJsonArray) -}}
{{- end -}}
{{- if .Values.rabbitmq.enabled -}}
{{- $live := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "selfheal.rabbitmq.fullname" .) -}}
{{- $p = concat $p (include "selfheal.guards.persistence" (dict "root" . "live" $live) | fromJsonArray) -}}
{{- end -}}
{{- $p = concat $p (include "selfheal.guards.ownNamespace" . | fromJsonArray) -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* Workers that KEDA has taken to zero, and now a HorizontalPodAutoscaler, which never scales from there. One that is there
     already with workers at zero was switched off like that by hand. */}}
{{- define "selfheal.guards.fromZero" -}}
{{- $p := list -}}
{{- if and .Values.worker.enabled (eq (include "selfheal.autoscaler" .) "hpa") -}}
{{- $name := printf "%s-worker" (include "selfheal.fullname" .) -}}
{{- $workers := dig "spec" "replicas" 1 (lookup "apps/v1" "Deployment" .Release.Namespace $name) | int -}}
{{- if and (eq $workers 0) (not (lookup "autoscaling/v2" "HorizontalPodAutoscaler" .Release.Namespace $name)) -}}
{{- $p = append $p "this release has 0 workers now, and a HorizontalPodAutoscaler leaves 0 as it is: upgrade once with autoscaling.mode=none and worker.replicas=1, then with autoscaling.mode=hpa" -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* An existing Secret for the bundled broker that lacks a key. */}}
{{- define "selfheal.guards.brokerKeys" -}}
{{- $p := list -}}
{{- $auth := .Values.rabbitmq.auth -}}
{{- if and .Values.rabbitmq.enabled $auth.existingSecret -}}
{{- with $secret := lookup "v1" "Secret" .Release.Namespace $auth.existingSecret -}}
{{- range $value, $key := $auth.secretKeys -}}
{{- if not (get (default dict $secret.data) $key) -}}
{{- $p = append $p (printf "the Secret %s has no key %s, which the broker needs: add it, or set rabbitmq.auth.secretKeys.%s to the key that it has" $auth.existingSecret $key $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* An existing Secret that lacks the credentials of KEDA for the management API. */}}
{{- define "selfheal.guards.managementKeys" -}}
{{- $p := list -}}
{{- $b := .Values.broker -}}
{{- if and .Values.worker.enabled (not .Values.rabbitmq.enabled) $b.existingSecret (eq (include "selfheal.autoscaler" .) "keda") -}}
{{- with $secret := lookup "v1" "Secret" .Release.Namespace $b.existingSecret -}}
{{- range $value := list "managementUsername" "managementPassword" -}}
{{- $key := get $b.secretKeys $value -}}
{{- if not (hasKey (default dict $secret.data) $key) -}}
{{- $p = append $p (printf "the Secret %s has no key %s, and with autoscaling.mode=keda that is what KEDA logs in to broker.managementUrl with: add it, or set broker.secretKeys.%s to the key that it has" $b.existingSecret $key $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* The detector's namespace was created by this release, and would be deleted with its content. */}}
{{- define "selfheal.guards.ownNamespace" -}}
{{- $p := list -}}
{{- $name := include "selfheal.detector.namespace" . -}}
{{- if and .Release.IsUpgrade .Values.nodeProblemDetector.enabled (not (include "selfheal.detector.makesNamespace" .)) (ne $name .Release.Namespace) -}}
{{- $owner := default dict (dig "metadata" "annotations" dict (lookup "v1" "Namespace" "" $name)) -}}
{{- $ours := and (eq (get $owner "meta.helm.sh/release-name") .Release.Name) (eq (get $owner "meta.helm.sh/release-namespace") .Release.Namespace) -}}
{{- if and $ours (ne (get $owner "helm.sh/resource-policy") "keep") -}}
{{- $unset := kindIs "invalid" .Values.nodeProblemDetector.createNamespace -}}
{{- $p = append $p (printf "nodeProblemDetector.createNamespace is %s, and this release made the namespace %s: Helm would delete it with the detector and all else in it; %s it true (a pull secret can be put there at any time)" ($unset | ternary "not set" "false") $name ($unset | ternary "set" "leave")) -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* What this cluster's KEDA cannot do. dict: root, definition (of ScaledObjects, or an empty object). */}}
{{- define "selfheal.guards.keda" -}}
{{- $p := list -}}
{{- with .definition -}}
{{- $fallback := $.root.Values.autoscaling.keda.fallback -}}
{{- $version := include "selfheal.keda.version" . -}}
{{- $knows := true -}}
{{- range (default list .spec.versions) -}}
{{- $fields := dig "schema" "openAPIV3Schema" "properties" "spec" "properties" "fallback" "properties" dict . -}}
{{- if $fields }}{{- $knows = hasKey $fields "behavior" -}}{{- end -}}
{{- end -}}
{{- if and $version (semverCompare "<2.16.0-0" $version) -}}
{{- $p = append $p (printf "this cluster has KEDA %s, which cannot log in to the broker with a user and a password of a Secret: upgrade KEDA to 2.17 or newer, or set autoscaling.mode=hpa with autoscaling.minReplicas=1" $version) -}}
{{- else if and $fallback.enabled (ne $fallback.behavior "static") (not $knows) -}}
{{- $p = append $p (printf "autoscaling.keda.fallback.behavior is %s, which this cluster's KEDA%s does not know: upgrade KEDA to 2.17 or newer, or set autoscaling.keda.fallback.behavior=static" $fallback.behavior (empty $version | ternary "" (printf " %s" $version))) -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* KEDA's version as its type ScaledObject says it in a label; empty: it does not. Gets the CustomResourceDefinition. */}}
{{- define "selfheal.keda.version" -}}
{{- regexFind "[0-9]+\\.[0-9]+\\.[0-9]+" (dig "metadata" "labels" "app.kubernetes.io/version" "" .) -}}
{{- end -}}

{{/* The type ScaledObject as the cluster has it, as JSON; empty if it cannot be read. Users without rights on cluster-scoped
     objects are not looked up: a forbidden lookup fails the whole rendering. */}}
{{- define "selfheal.keda.definition" -}}
{{- $found := dict -}}
{{- if and (or .Values.remediator.enabled .Values.nodeProblemDetector.enabled) (include "selfheal.seesCluster" .) -}}
{{- $found = lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "scaledobjects.keda.sh" -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* The limitations of a KEDA version, as one line; all of them if the version is unknown. */}}
{{- define "selfheal.keda.costs" -}}
{{- $costs := list -}}
{{- if or (not .) (semverCompare "<2.17.0-0" .) -}}
{{- $costs = append $costs "below 2.17 it knows no fallback but `static`" -}}
{{- end -}}
{{- if or (not .) (semverCompare "<2.19.0-0" .) -}}
{{- $costs = append $costs "below 2.19 the fallback starts no worker where there is none" -}}
{{- end -}}
{{- if or (not .) (semverCompare "<2.20.0-0" .) -}}
{{- $costs = append $costs "below 2.20 a condition Fallback may stay True (Argo CD: Degraded)" -}}
{{- end -}}
{{- $costs | join "; " -}}
{{- end -}}

{{/* Bytes of a quantity such as 2Gi, 500M or 1073741824. */}}
{{- define "selfheal.bytes" -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- $text := include "selfheal.text" . -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $units (regexFind "[a-zA-Z]*$" $text)) | printf "%.0f" -}}
{{- end -}}

{{/* Immutable fields of a StatefulSet. dict: root, live (the StatefulSet, or an empty object). */}}
{{- define "selfheal.guards.persistence" -}}
{{- $p := list -}}
{{- if .live -}}
{{- $wanted := .root.Values.rabbitmq.persistence -}}
{{- $name := .live.metadata.name -}}
{{- $claims := .live.spec.volumeClaimTemplates | default list -}}
{{- $again := printf "`kubectl -n %s delete statefulset %s --cascade=orphan` before the upgrade has it made again" .root.Release.Namespace $name -}}
{{- if ne $wanted.enabled (not (empty $claims)) -}}
{{- $p = append $p (printf "rabbitmq.persistence.enabled is %v, and the live broker has %s, which Kubernetes never changes: set it back to %v, or give its messages up: %s" $wanted.enabled (empty $claims | ternary "no volume" "one") (not $wanted.enabled) $again) -}}
{{- else if $claims -}}
{{- $spec := (first $claims).spec -}}
{{- $size := $spec.resources.requests.storage -}}
{{- if ne (include "selfheal.bytes" $size) (include "selfheal.bytes" $wanted.size) -}}
{{- $p = append $p (printf "rabbitmq.persistence.size is %s, and the live broker's claim has %s, which an upgrade alone cannot change: set it back, or follow the runbook SelfhealBrokerBlocked: enlarge the claim data-%s-0 itself, then %s" (include "selfheal.text" $wanted.size) $size $name $again) -}}
{{- end -}}
{{- $class := hasKey $spec "storageClassName" | ternary ($spec.storageClassName | default "-") "" -}}
{{- if ne $class $wanted.storageClass -}}
{{- $p = append $p (printf "rabbitmq.persistence.storageClass is %q, and the live broker's claim has %q, which never changes: set it back, or give its messages up: delete the claim data-%s-0 too; %s" $wanted.storageClass $class $name $again) -}}
{{- end -}}
{{- if ne (sortAlpha $spec.accessModes | toJson) (sortAlpha $wanted.accessModes | toJson) -}}
{{- $p = append $p (printf "rabbitmq.persistence.accessModes is %s, and the live broker's claim has %s, which never changes: set it back, or give its messages up: delete the claim data-%s-0 too; %s" ($wanted.accessModes | join ", ") ($spec.accessModes | join ", ") $name $again) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* Not empty when the broker's claim is still to be made, and nothing would give it a volume. */}}
{{- define "selfheal.guards.noStorageClass" -}}
{{- $v := .Values.rabbitmq.persistence -}}
{{- if and .Values.rabbitmq.enabled $v.enabled (not $v.storageClass) -}}
{{- if not (lookup "v1" "PersistentVolumeClaim" .Release.Namespace (printf "data-%s-0" (include "selfheal.rabbitmq.fullname" .))) -}}
{{- $default := false -}}
{{- range (lookup "storage.k8s.io/v1" "StorageClass" "" "").items -}}
{{- $annotations := default dict .metadata.annotations -}}
{{/* Kubernetes goes by the old one too. */}}
{{- range list "storageclass.kubernetes.io/is-default-class" "storageclass.beta.kubernetes.io/is-default-class" -}}
{{- if eq (get $annotations .) "true" }}{{- $default = true -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $default -}}none{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "selfheal.guards.environment" -}}
{{- $p := list -}}
{{- range $component := list "worker" "remediator" "ollama" "rabbitmq" "nodeProblemDetector" -}}
{{- if (get $.Values $component).enabled -}}
{{- $seen := dict -}}
{{- range include (printf "selfheal.%s.env" $component) $ | fromYamlArray -}}
{{- if hasKey $seen .name -}}
{{- $p = append $p (printf "%s.extraEnv sets %s, which is set already: use the value of the chart that it comes from, or give it once" $component .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson (uniq $p) -}}
{{- end -}}

{{- define "selfheal.guards.labels" -}}
{{- $p := list -}}
{{- range $label := include "selfheal.ownLabels" (dict "root" $ "component" "") | fromYaml | keys | sortAlpha -}}
{{- if hasKey (default dict $.Values.commonLabels) $label -}}
{{- $p = append $p (printf "commonLabels sets %s, which the chart sets on every object itself: give them a label of another name" $label) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "worker" "rabbitmq" "ollama" "remediator" "nodeProblemDetector" -}}
{{- $values := get $.Values $key -}}
{{- range $label := include "selfheal.selectorLabels" (dict "root" $ "component" "") | fromYaml | keys | sortAlpha -}}
{{- if and $values.enabled (hasKey (default dict $values.podLabels) $label) -}}
{{- $p = append $p (printf "%s.podLabels sets %s, by which the pods are found: give them a label of another name" $key $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.autoscaling" -}}
{{- $p := list -}}
{{- $a := .Values.autoscaling -}}
{{- if .Values.worker.enabled -}}
{{- if and (ne $a.mode "none") (gt (int $a.minReplicas) (int $a.maxReplicas)) -}}
{{- $p = append $p (printf "autoscaling.minReplicas is %d and autoscaling.maxReplicas is %d: the minimum must not be above the maximum" (int $a.minReplicas) (int $a.maxReplicas)) -}}
{{- end -}}
{{- if and (eq $a.mode "hpa") (eq (int $a.minReplicas) 0) -}}
{{- $p = append $p "autoscaling.minReplicas is 0 with autoscaling.mode=hpa: only KEDA scales to zero; set autoscaling.minReplicas to at least 1, or autoscaling.mode=keda" -}}
{{- end -}}
{{- $requests := default dict (default dict .Values.worker.resources).requests -}}
{{- if and (eq (include "selfheal.autoscaler" .) "hpa") (not (hasKey $requests "cpu")) -}}
{{- $p = append $p "autoscaling.mode=hpa measures CPU in percent of the request, and worker.resources.requests.cpu is not set: set it" -}}
{{- end -}}
{{- if and (eq (include "selfheal.autoscaler" .) "keda") (not .Values.rabbitmq.enabled) (not .Values.broker.managementUrl) -}}
{{- $p = append $p "autoscaling.mode=keda reads the queue's length from RabbitMQ's management API: set broker.managementUrl (such as https://rabbitmq.example:15671/), or autoscaling.mode=hpa" -}}
{{- end -}}
{{- if and (eq (include "selfheal.autoscaler" .) "keda") $a.keda.fallback.enabled (gt (int $a.keda.fallback.replicas) (int $a.maxReplicas)) -}}
{{- $p = append $p (printf "autoscaling.keda.fallback.replicas is %d, above autoscaling.maxReplicas (%d): set it to at most the maximum" (int $a.keda.fallback.replicas) (int $a.maxReplicas)) -}}
{{- end -}}
{{- if and (eq (include "selfheal.autoscaler" .) "keda") (eq (int $a.minReplicas) 0) (not .Values.topology.enabled) -}}
{{- $p = append $p "topology.enabled is false with autoscaling.minReplicas=0: without a worker nothing declares the queue that KEDA polls, so no worker would ever start; set topology.enabled=true, or autoscaling.minReplicas to at least 1" -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.budgets" -}}
{{- $p := list -}}
{{- range $component := list "worker" "remediator" "ollama" -}}
{{- $values := get $.Values $component -}}
{{- if and $values.enabled $values.podDisruptionBudget.enabled -}}
{{- if regexMatch "^0+%?$" (toString $values.podDisruptionBudget.maxUnavailable) -}}
{{- $p = append $p (printf "%s.podDisruptionBudget.maxUnavailable is %v: no pod could ever be evicted and no node be drained; set at least 1 (or 1%%), or %s.podDisruptionBudget.enabled=false" $component $values.podDisruptionBudget.maxUnavailable $component) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.grace" -}}
{{- $p := list -}}
{{- if .Values.worker.enabled -}}
{{- $deadline := float64 .Values.model.deadlineSeconds -}}
{{- $grace := include "selfheal.worker.shutdownGrace" . | float64 -}}
{{- $kill := include "selfheal.worker.terminationGrace" . | float64 -}}
{{- if lt $grace $deadline -}}
{{- $p = append $p (printf "worker.shutdownGraceSeconds (%v) is shorter than model.deadlineSeconds (%v): every rollout would throw model calls away; set it to at least the deadline, or leave it null" $grace $deadline) -}}
{{- end -}}
{{- if lt $kill (addf $grace 5) -}}
{{- $p = append $p (printf "worker.terminationGracePeriodSeconds (%v) leaves a worker no time: set it to at least %v (the shutdown grace of %v plus 5 to requeue messages), or leave it null" $kill (addf $grace 5) $grace) -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.priority" -}}
{{- $p := list -}}
{{- $value := int .Values.worker.priorityClass.value -}}
{{- if and (include "selfheal.worker.priorityClass" .) (or (lt $value -10) (gt $value -1)) -}}
{{- $p = append $p (printf "worker.priorityClass.value is %d: %s; set it to -10 to -1, or worker.priorityClassName to a class of yours" $value (lt $value -10 | ternary "below -10 cluster-autoscaler adds no node for the workers" "workers would take the room of their own broker, which ranks at 0")) -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.broker" -}}
{{- $p := list -}}
{{- $b := .Values.broker -}}
{{- if .Values.rabbitmq.enabled -}}
{{- range $key := list "host" "existingSecret" "managementUrl" -}}
{{- with get $b $key -}}
{{- $p = append $p (printf "broker.%s is %q and rabbitmq.enabled is true, which is two brokers: set rabbitmq.enabled=false to use yours, or leave broker.%s empty" $key . $key) -}}
{{- end -}}
{{- end -}}
{{- if $b.tls.enabled -}}
{{- $p = append $p "broker.tls.enabled is for a broker of yours: set rabbitmq.enabled=false with it (the bundled one, for evaluation, speaks plain AMQP)" -}}
{{- end -}}
{{- with .Values.rabbitmq.auth -}}
{{- if and .existingSecret (or .password .monitorPassword) -}}
{{- $p = append $p "rabbitmq.auth.existingSecret names a Secret with the passwords, and rabbitmq.auth.password or monitorPassword gives one too: put it into the Secret, or leave existingSecret empty" -}}
{{- end -}}
{{- end -}}
{{- range $key := list "username" "monitorUsername" -}}
{{- if eq (get $.Values.rabbitmq.auth $key) "guest" -}}
{{- $p = append $p (printf "rabbitmq.auth.%s is guest, which RabbitMQ only lets in from localhost: set another name" $key) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.rabbitmq.auth.username .Values.rabbitmq.auth.monitorUsername -}}
{{- $p = append $p "rabbitmq.auth.username and rabbitmq.auth.monitorUsername are the same: set two different users" -}}
{{- end -}}
{{- else if .Values.worker.enabled -}}
{{- if not $b.existingSecret -}}
{{- $p = append $p "rabbitmq.enabled is false and broker.existingSecret is empty: set it to the name of a Secret with the broker's credentials (keys: broker.secretKeys)" -}}
{{- end -}}
{{- if not (or $b.host $b.secretKeys.uri) -}}
{{- $p = append $p "rabbitmq.enabled is false and nothing says where the broker is: set broker.host, or broker.secretKeys.uri to the key of an amqp:// URI in broker.existingSecret" -}}
{{- end -}}
{{- if and $b.tls.enabled (not $b.tls.existingSecret) -}}
{{- $p = append $p "broker.tls.enabled is true and broker.tls.existingSecret is empty: set it to the name of a Secret with the certificate authority" -}}
{{- end -}}
{{- if ne (empty $b.tls.certKey) (empty $b.tls.keyKey) -}}
{{- $p = append $p "broker.tls.certKey and broker.tls.keyKey belong together: set both or neither" -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.queue" -}}
{{- $p := list -}}
{{- with .Values.queue -}}
{{- $names := list .name (.deadLetters | default (printf "%s.dead-letters" .name)) (.results | default (printf "%s.results" .name)) -}}
{{- if ne (len (uniq $names)) 3 -}}
{{- $p = append $p (printf "queue.name, queue.deadLetters and queue.results must be three different queues, and are %s" ($names | join ", ")) -}}
{{- end -}}
{{- $own := list (printf "%s.rights" .name) -}}
{{- range .retryDelays }}{{- $own = append $own (printf "%s.retry.%ss" $.Values.queue.name (include "selfheal.text" .)) }}{{- end -}}
{{- range $key := list "deadLetters" "results" -}}
{{- if has (get $.Values.queue $key) $own -}}
{{- $p = append $p (printf "queue.%s is %s, a name that the workers derive from queue.name for themselves: use another one" $key (get $.Values.queue $key)) -}}
{{- end -}}
{{- end -}}
{{/* RabbitMQ's limit is 255 bytes; the longest addition is `.helm-test.retry.<n>s`. */}}
{{- range $key, $name := dict "name" .name "deadLetters" .deadLetters "results" .results -}}
{{- $most := eq $key "name" | ternary 230 255 -}}
{{- if gt (len $name) $most -}}
{{- $p = append $p (printf "queue.%s has %d bytes: RabbitMQ allows 255 with what is appended to it; set a name of at most %d bytes" $key (len $name) $most) -}}
{{- end -}}
{{- if hasPrefix "amq." $name -}}
{{- $p = append $p (printf "queue.%s is %s, and names that begin with `amq.` are RabbitMQ's own: use another one" $key $name) -}}
{{- end -}}
{{- end -}}
{{- $last := 0 -}}
{{- range .retryDelays -}}
{{- if le (int .) $last -}}
{{- $p = append $p "queue.retryDelays must grow, such as [1, 5, 30, 120]" -}}
{{- end -}}
{{- $last = int . -}}
{{- end -}}
{{- end -}}
{{- toJson (uniq $p) -}}
{{- end -}}

{{- define "selfheal.guards.model" -}}
{{- $p := list -}}
{{- with .Values.model -}}
{{- if $.Values.worker.enabled -}}
{{- if not .active -}}
{{- if and (has .provider (list "ollama" "openai" "langchain" "llamacpp")) (not .name) -}}
{{- $p = append $p (printf "model.provider=%s needs model.name: set it to the model's name" .provider) -}}
{{- end -}}
{{- if and (has .provider (list "ollama" "openai")) (not .baseUrl) (not $.Values.ollama.enabled) -}}
{{- $p = append $p (printf "model.provider=%s needs model.baseUrl: set it to the model server's URL%s" .provider (eq .provider "ollama" | ternary ", or ollama.enabled=true to run one" "")) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .provider "builtin") .baseUrl -}}
{{- $p = append $p (printf "model.baseUrl is %q and model.provider=builtin uses no server: set model.provider to ollama or openai, or leave model.baseUrl empty" .baseUrl) -}}
{{- end -}}
{{- $p = concat $p (include "selfheal.guards.models" $ | fromJsonArray) -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* The named models, and who names them. */}}
{{- define "selfheal.guards.models" -}}
{{- $p := list -}}
{{- $names := keys .Values.models | sortAlpha -}}
{{- $known := append $names "builtin" -}}
{{- $active := .Values.model.active -}}
{{- if and $active (not (has $active $known)) -}}
{{- $p = append $p (printf "model.active is %s, which is not one of models (%s): add it there" $active ($names | join ", ")) -}}
{{- end -}}
{{- range .Values.model.fallback -}}
{{- if not (has . $known) -}}
{{- $p = append $p (printf "model.fallback names %s, which is neither builtin nor one of models (%s): add it there" . ($names | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- $chain := append .Values.model.fallback $active -}}
{{- if ne (len $chain) (len (uniq $chain)) -}}
{{- $p = append $p (printf "model.active and model.fallback name a model twice (%s): name each once" ($chain | join ", ")) -}}
{{- end -}}
{{- $builtin := ternary (eq .Values.model.provider "builtin") (or (eq $active "builtin") (eq (dig $active "provider" "" .Values.models) "builtin")) (empty $active) -}}
{{- if and .Values.task (or $builtin (has "builtin" .Values.model.fallback)) -}}
{{- $p = append $p "task is set and the model builtin, which knows emotion analysis alone, would answer: set model.provider (or model.active) and model.fallback to others, or leave task empty" -}}
{{- end -}}
{{- range $name, $model := .Values.models -}}
{{- if and (has $model.provider (list "ollama" "openai" "langchain" "llamacpp")) (not $model.name) -}}
{{- $p = append $p (printf "models.%s.provider=%s needs models.%s.name: set it to the model's name" $name $model.provider $name) -}}
{{- end -}}
{{- if and (eq $model.provider "ollama") (not $model.baseUrl) (not $.Values.ollama.enabled) -}}
{{- $p = append $p (printf "models.%s.provider=ollama needs models.%s.baseUrl: set it to the model server's URL, or ollama.enabled=true to run one" $name $name) -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.ollama" -}}
{{- $p := list -}}
{{- $o := .Values.ollama -}}
{{- if $o.enabled -}}
{{- if not $o.models -}}
{{- $p = append $p "ollama.enabled is true and ollama.models is empty: set it to the models to have ready, such as [smollm2:135m]" -}}
{{- end -}}
{{- if .Values.worker.enabled -}}
{{- $named := list -}}
{{- range .Values.models -}}{{- $named = append $named .provider -}}{{- end -}}
{{- if and (ne .Values.model.provider "ollama") (not (has "ollama" $named)) -}}
{{- $p = append $p (printf "ollama.enabled is true and model.provider is %s, so nobody would use it: set model.provider=ollama, or give one of models that provider (to switch to it later with model.active), or set ollama.enabled=false" .Values.model.provider) -}}
{{- end -}}
{{- if .Values.model.baseUrl -}}
{{- $p = append $p (printf "ollama.enabled is true and model.baseUrl is %q, which is two model servers: leave model.baseUrl empty, or set ollama.enabled=false" .Values.model.baseUrl) -}}
{{- end -}}
{{- if and (eq .Values.model.provider "ollama") .Values.model.name $o.models (not (has .Values.model.name $o.models)) -}}
{{- $p = append $p (printf "model.name is %s, which is not one of ollama.models (%s): add it there" .Values.model.name ($o.models | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- $most := $o.autoscaling.enabled | ternary $o.autoscaling.maxReplicas $o.replicas | int -}}
{{- if and $o.autoscaling.enabled (gt (int $o.autoscaling.minReplicas) $most) -}}
{{- $p = append $p (printf "ollama.autoscaling.minReplicas is %d and ollama.autoscaling.maxReplicas is %d: the minimum must not be above the maximum" (int $o.autoscaling.minReplicas) $most) -}}
{{- end -}}
{{- if and $o.autoscaling.enabled (gt (int $o.gpu.count) 0) -}}
{{- $p = append $p "ollama.gpu.count is above 0 with ollama.autoscaling.enabled=true, which scales by CPU and a GPU leaves idle: set ollama.autoscaling.enabled=false and ollama.replicas" -}}
{{- end -}}
{{- if and $o.autoscaling.enabled (not (hasKey (default dict (default dict $o.resources).requests) "cpu")) -}}
{{- $p = append $p "ollama.autoscaling measures CPU in percent of the request, and ollama.resources.requests.cpu is not set: set it" -}}
{{- end -}}
{{- if and $o.modelsInImage $o.persistence.enabled -}}
{{- $p = append $p (printf "ollama.modelsInImage is %s and ollama.persistence.enabled is true, but models are in one place: set ollama.persistence.enabled=false, or leave ollama.modelsInImage empty" $o.modelsInImage) -}}
{{- end -}}
{{- if and $o.persistence.enabled (not $o.persistence.existingClaim) (gt $most 1) (not (has "ReadWriteMany" $o.persistence.accessModes)) -}}
{{- $p = append $p (printf "ollama.persistence.accessModes is %s for up to %d replicas, which cannot share it: set [ReadWriteMany], or one replica, or ollama.persistence.enabled=false" ($o.persistence.accessModes | join ", ") $most) -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.healing" -}}
{{- $p := list -}}
{{- range $component := list "worker" "ollama" -}}
{{- $values := get $.Values $component -}}
{{- $policy := $values.healingPolicy -}}
{{- if and $.Values.healingPolicies.enabled $values.enabled $policy.enabled -}}
{{- $when := merge (dict) $policy.unhealthyWhen -}}
{{- if eq $component "worker" -}}
{{- $_ := set $when "noProgressFor" (include "selfheal.worker.noProgressFor" $) -}}
{{- end -}}
{{- if not (include "selfheal.healingPolicy.set" $when | fromJson) -}}
{{- $p = append $p (printf "%s.healingPolicy.unhealthyWhen is empty: no pod would ever count as unhealthy; set one of %s, or %s.healingPolicy.enabled=false" $component (keys $when | sortAlpha | join ", ") $component) -}}
{{- end -}}
{{- range $key := list "backoff" "maxBackoff" -}}
{{- $seconds := include "selfheal.seconds" (get $policy.restart $key) | float64 -}}
{{- if or (lt $seconds 5.0) (gt $seconds 300.0) -}}
{{- $p = append $p (printf "%s.healingPolicy.restart.%s is %s: set it to 5s at least and 300s at most" $component $key (get $policy.restart $key)) -}}
{{- end -}}
{{- end -}}
{{- if gt (include "selfheal.seconds" $policy.restart.backoff | float64) (include "selfheal.seconds" $policy.restart.maxBackoff | float64) -}}
{{- $p = append $p (printf "%s.healingPolicy.restart.backoff (%s) is longer than maxBackoff (%s): set it to at most that" $component $policy.restart.backoff $policy.restart.maxBackoff) -}}
{{- end -}}
{{- if eq $component "worker" -}}
{{- $grace := include "selfheal.seconds" $policy.restart.gracePeriod | float64 -}}
{{- if or (lt $grace 1.0) (gt $grace 10.0) -}}
{{- $p = append $p (printf "worker.healingPolicy.restart.gracePeriod is %s: set it to 1s at least and 10s at most" $policy.restart.gracePeriod) -}}
{{- end -}}
{{- with $when.noProgressFor -}}
{{- if le (include "selfheal.seconds" . | float64) (float64 $.Values.model.deadlineSeconds) -}}
{{- $p = append $p (printf "worker.healingPolicy.unhealthyWhen.noProgressFor (%s) is not longer than model.deadlineSeconds (%v), so a worker during a long call would count as hung: set it longer, or leave it null" . $.Values.model.deadlineSeconds) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.healingPolicies.enabled (eq (include "selfheal.healingPolicy.unknown" .) "upgrade") -}}
{{- $p = append $p "this cluster does not know HealingPolicies, and Helm adds new types only at an install: run `kubectl apply --server-side -f chart/crds/` first, or set healingPolicies.enabled=false" -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.remediator" -}}
{{- $p := list -}}
{{- if .Values.remediator.enabled -}}
{{- $c := .Values.remediator.config -}}
{{- $held := toString $c.limits.maxUnavailable -}}
{{- if and (hasSuffix "%" $held) (gt (trimSuffix "%" $held | int) 50) -}}
{{- $p = append $p (printf "remediator.config.limits.maxUnavailable is %s: one bad rule could empty most of the cluster; set at most 50%%, or a number of nodes" $held) -}}
{{- end -}}
{{- if and (regexMatch "^0+%?$" $held) (eq (int $c.limits.minAllowed) 0) -}}
{{- $p = append $p "remediator.config.limits.maxUnavailable and minAllowed are both 0, so it could never act: set minAllowed to at least 1, or remediator.config.mode=dryRun" -}}
{{- end -}}
{{- $known := concat (list "Ready" "MemoryPressure" "DiskPressure" "PIDPressure" "NetworkUnavailable" "PodsHung") .Values.remediator.externalConditions -}}
{{- $lists := list (list "remediator.config.rules" $c.rules) -}}
{{- range $at, $group := $c.groups -}}
{{- $lists = append $lists (list (printf "remediator.config.groups[%d].rules" $at) (default list $group.rules)) -}}
{{- end -}}
{{- range $list := $lists -}}
{{- range $at, $rule := index $list 1 -}}
{{- $where := printf "%s[%d] (%s)" (index $list 0) $at $rule.condition -}}
{{- if and $rule.then (ne $rule.action "drain") -}}
{{- $p = append $p (printf "%s has `then` with action: %s, and steps follow a drain: set action: drain" $where $rule.action) -}}
{{- end -}}
{{- if and $rule.verify (eq $rule.action "observe") -}}
{{- $p = append $p (printf "%s has `verify` with action: observe, which cordons nothing: set action: drain or cordon" $where) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key := list "maxUnavailablePerGroup" "maxDrainingPerGroup" -}}
{{- if and (regexMatch "^[0-9]" (get $c.limits $key | toString)) (not $c.limits.groupLabel) -}}
{{- $p = append $p (printf "remediator.config.limits.%s is set and groupLabel is empty, so no node is in a group: set remediator.config.limits.groupLabel to the node label whose value is the group" $key) -}}
{{- end -}}
{{- end -}}
{{- if lt (include "selfheal.seconds" $c.policies.evaluationInterval | float64) 1.0 -}}
{{- $p = append $p (printf "remediator.config.policies.evaluationInterval is %s: set it to 1s at least" $c.policies.evaluationInterval) -}}
{{- end -}}
{{- if lt (include "selfheal.seconds" $c.policies.rolloutDeadline | float64) 1.0 -}}
{{- $p = append $p (printf "remediator.config.policies.rolloutDeadline is %s: set it to 1s at least" $c.policies.rolloutDeadline) -}}
{{- end -}}
{{- $drain := include "selfheal.seconds" $c.drain.deadline | float64 -}}
{{- if lt $drain 1.0 -}}
{{- $p = append $p (printf "remediator.config.drain.deadline is %s, so every drain would be past it from its beginning: set it to 1s at least" $c.drain.deadline) -}}
{{- else if and (eq $c.drain.onDeadline "delete") (lt $drain 60.0) -}}
{{- $p = append $p (printf "remediator.config.drain.deadline is %s with onDeadline: delete, so pods would be deleted that had no time to be evicted: set it to 1m at least" $c.drain.deadline) -}}
{{- end -}}
{{- if and $c.signal.enabled (lt (include "selfheal.seconds" $c.signal.window | float64) 1.0) -}}
{{- $p = append $p (printf "remediator.config.signal.window is %s, so no nodes would count as hit at once: set it to 1s at least, or signal.enabled=false" $c.signal.window) -}}
{{- end -}}
{{- if lt (include "selfheal.seconds" $c.recovery.flapWindow | float64) 1.0 -}}
{{- $p = append $p (printf "remediator.config.recovery.flapWindow is %s, so maxFlaps would never be reached: set it to 1s at least" $c.recovery.flapWindow) -}}
{{- end -}}
{{- if lt (include "selfheal.seconds" $c.recovery.cancelFor | float64) 60.0 -}}
{{- $p = append $p (printf "remediator.config.recovery.cancelFor is %s, so the node that a person uncordons would be cordoned again at once: set it to 1m at least" $c.recovery.cancelFor) -}}
{{- end -}}
{{- with $c.limits.rate -}}
{{- if lt (include "selfheal.seconds" .window | float64) 1.0 -}}
{{- $p = append $p (printf "remediator.config.limits.rate.window is %s, so no cordon would be counted: set it to 1s at least" .window) -}}
{{- end -}}
{{- end -}}
{{- $rules := dict "rules" $c.rules -}}
{{- range $index, $group := $c.groups -}}
{{- $_ := set $rules (printf "groups[%d].rules" $index) ($group.rules | default list) -}}
{{- end -}}
{{- range $where, $those := $rules -}}
{{- range $index, $rule := $those -}}
{{- range list $rule.condition (dig "verify" "condition" "type" "" $rule) -}}
{{- if has . (list "DrainInProgress" "Drained") -}}
{{- $p = append $p (printf "remediator.config.%s[%d] is about the condition %s, which a drain reports: nothing may follow from it, remove that" $where $index .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $c.taint -}}
{{- $domain := contains "/" .key | ternary (printf ".%s" (splitList "/" .key | first)) "" -}}
{{- if or (hasSuffix ".kubernetes.io" $domain) (hasSuffix ".k8s.io" $domain) (hasSuffix ".karpenter.sh" $domain) (hasSuffix ".medik8s.io" $domain) (has .key (list "ToBeDeletedByClusterAutoscaler" "DeletionCandidateOfClusterAutoscaler")) -}}
{{- $p = append $p (printf "remediator.config.taint.key is %s, by which another system is recognised: set a key of your own domain" .key) -}}
{{- end -}}
{{- if and (eq (toString .cordon) "false") (eq (default "" .effect) "PreferNoSchedule") -}}
{{- $p = append $p "remediator.config.taint has effect: PreferNoSchedule with cordon: false, which keeps no pod away: set effect: NoSchedule, or cordon: true" -}}
{{- end -}}
{{- end -}}
{{- $timeout := include "selfheal.seconds" $c.policies.progressTimeout | float64 -}}
{{- if or (lt $timeout 0.1) (gt $timeout 30.0) -}}
{{- $p = append $p (printf "remediator.config.policies.progressTimeout is %s: set it to 100ms at least and 30s at most" $c.policies.progressTimeout) -}}
{{- end -}}
{{- if .Values.nodeProblemDetector.enabled -}}
{{- $known = concat $known (include "selfheal.detector.conditions" . | splitList ",") -}}
{{- $detected := include "selfheal.detector.conditions" . | splitList "," -}}
{{- $period := .Values.nodeProblemDetector.heartbeatPeriod -}}
{{- range $index, $rule := $c.rules -}}
{{- $heartbeat := hasKey $rule "heartbeat" | ternary $rule.heartbeat "11m" -}}
{{- if and $heartbeat (has $rule.condition $detected) (le (include "selfheal.seconds" $heartbeat | float64) (include "selfheal.seconds" $period | float64)) -}}
{{- $p = append $p (printf "nodeProblemDetector.heartbeatPeriod (%s) is not shorter than the heartbeat of remediator.config.rules[%d] on %s (%s), so its signal would always be stale: set the rule's heartbeat to at least twice the period" $period $index $rule.condition $heartbeat) -}}
{{- end -}}
{{- if not (has $rule.condition $known) -}}
{{- $p = append $p (printf "remediator.config.rules[%d] is about the condition %s, which nothing sets: the bundled detector sets %s; add a monitor for it to nodeProblemDetector.customPlugins, or, when something else on your nodes sets it, add it to remediator.externalConditions" $index $rule.condition (include "selfheal.detector.conditions" $ | replace "," ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.lease" -}}
{{- $p := list -}}
{{- if .Values.remediator.enabled -}}
{{- $l := .Values.remediator.config.lease -}}
{{- $interval := include "selfheal.seconds" $l.renewInterval | float64 -}}
{{- $deadline := include "selfheal.seconds" $l.renewDeadline | float64 -}}
{{- $duration := include "selfheal.seconds" $l.duration | float64 -}}
{{- if not (and (lt $interval $deadline) (lt $deadline $duration) (ge $duration 1.0)) -}}
{{- $p = append $p (printf "remediator.config.lease has renewInterval %s, renewDeadline %s and duration %s: each must be shorter than the next, and the duration 1s at least" $l.renewInterval $l.renewDeadline $l.duration) -}}
{{- end -}}
{{- if lt $interval 0.05 -}}
{{- $p = append $p (printf "remediator.config.lease.renewInterval is %s: set it to 50ms at least, because each renewal is a write" $l.renewInterval) -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* Pairs of rules about the same condition, status and reason; reasons that are no pattern. Helm knows
Go's patterns, the remediator takes Python's: what Go refuses and only Python may know is left to it. */}}
{{- define "selfheal.guards.rules" -}}
{{- $p := list -}}
{{- if .Values.remediator.enabled -}}
{{- $first := dict -}}
{{- $pythons := `\(\?|\[:|[*+?}]\+|\{[0-9]*,?[0-9]{3}|\\([^dDsSwWnrtfv[:punct:] ])` -}}
{{- range $index, $rule := .Values.remediator.config.rules -}}
{{- $reason := $rule.reason | default "" -}}
{{- if not (or (regexMatch (printf "%s|" $reason) "") (regexMatch $pythons (trimSuffix "\\" $reason))) -}}
{{- $p = append $p (printf "remediator.config.rules[%d].reason is %q, which is not a regular expression: correct it, or put a \\ before each character that is meant as it stands" $index $reason) -}}
{{- end -}}
{{- range uniq ($rule.status | default (list "True")) -}}
{{- $what := list $rule.condition . ($rule.reason | default "") | toJson -}}
{{- if hasKey $first $what -}}
{{- $p = append $p (printf "remediator.config.rules[%d] and rules[%d] are both about %s=%s with the same reason: keep one, or take the status out of one" (get $first $what) $index $rule.condition .) -}}
{{- else -}}
{{- $_ := set $first $what $index -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.detector" -}}
{{- $p := list -}}
{{- if .Values.nodeProblemDetector.enabled -}}
{{- $d := .Values.nodeProblemDetector -}}
{{- if eq (include "selfheal.detector.files" . | fromJson | len) 0 -}}
{{- $p = append $p "nodeProblemDetector is enabled and has no monitors: keep one of nodeProblemDetector.systemLogMonitors or add one to customPlugins, or set nodeProblemDetector.enabled=false" -}}
{{- end -}}
{{- range $name, $plugin := $d.customPlugins -}}
{{- if and $plugin (get (default dict $d.systemLogMonitors) $name) -}}
{{- $p = append $p (printf "nodeProblemDetector.customPlugins.%s has the name of one of systemLogMonitors: give it another name" $name) -}}
{{- end -}}
{{- range (default dict (default dict $plugin).config).rules -}}
{{- $file := trimPrefix (printf "/plugins/%s/" $name) .path -}}
{{- if and (hasPrefix (printf "/plugins/%s/" $name) .path) (not (hasKey (default dict $plugin.scripts) $file)) -}}
{{- $p = append $p (printf "nodeProblemDetector.customPlugins.%s runs %s, and its scripts have no %s: add it to nodeProblemDetector.customPlugins.%s.scripts" $name .path $file $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{- define "selfheal.guards.alerts" -}}
{{- $p := list -}}
{{- if include "selfheal.alerts.enabled" . -}}
{{- $known := list -}}
{{- range (.Files.Get "files/alerts/rules.json" | fromJson).groups -}}
{{- range .rules }}{{- $known = append $known .alert -}}{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.alerts.rules -}}
{{- if not (has $name $known) -}}
{{- $p = append $p (printf "alerts.rules.%s changes an alert that does not exist: the alerts are %s" $name ($known | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- if and (include "selfheal.seesCluster" .) (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- $p = append $p "alerts.enabled is true, and this cluster has no Prometheus operator (no API monitoring.coreos.com/v1): install it first, or set alerts.enabled=false" -}}
{{- end -}}
{{- end -}}
{{- toJson $p -}}
{{- end -}}

{{/* Seconds of a duration such as 1h30m, 90s or 250ms. */}}
{{- define "selfheal.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|s|m|h)" . -1 -}}
{{- $sum = addf $sum (mulf (regexFind "[0-9.]+" . | float64) (get $units (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}
