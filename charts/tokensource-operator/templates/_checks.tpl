{{- /* Refuses combinations of values that exclude each other. */}}
{{- define "tokensource-operator.check" -}}
{{- if and .Values.namespaces .Values.namespaceSelector }}
{{- fail "namespaces and namespaceSelector exclude each other: set one of them" }}
{{- end }}
{{- if and (eq .Values.rbac.mode "perNamespace") .Values.namespaces }}
{{- fail "namespaces already limits the operator to Roles of these namespaces: set rbac.mode to cluster" }}
{{- end }}
{{- if and (ne .Values.rbac.mode "perNamespace") .Values.rbac.bind }}
{{- fail "rbac.bind is for rbac.mode perNamespace: elsewhere the operator needs no RoleBindings" }}
{{- end }}
{{- include "tokensource-operator.checkServiceAccountTokens" . }}
{{- include "tokensource-operator.checkTest" . }}
{{- if and .Values.issuers.required (not .Values.issuers.enabled) }}
{{- fail "issuers.required needs issuers.enabled: no TokenSource would be served" }}
{{- end }}
{{- if and .Values.issuers.enabled (not .Values.admissionPolicy.enabled) }}
{{- fail "issuers.enabled needs admissionPolicy.enabled, which limits what the operator writes about issuers" }}
{{- end }}
{{- if and (not .Values.leaderElection.enabled) (gt (int .Values.replicaCount) 1) }}
{{- fail "without leaderElection.enabled every replica would request every token: set replicaCount to 1" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}
{{- fail "metrics.serviceMonitor and metrics.podMonitor would scrape every pod twice: enable one of them" }}
{{- end }}
{{- if and .Values.metrics.secure .Values.namespaces }}
{{- fail "metrics.secure needs rights in the cluster, which the operator does not have with namespaces: limit who may connect by metrics.from" }}
{{- end }}
{{- range $kind := list "serviceMonitor" "podMonitor" }}
{{- $monitor := get $.Values.metrics $kind }}
{{- if and (not $.Values.metrics.secure) (or $monitor.tlsConfig $monitor.authorization) }}
{{- fail (printf "metrics.%s.tlsConfig and authorization are for metrics.secure; for a proxy in front of the operator use metrics.%s.endpointAdditionalProperties" $kind $kind) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.secure .Values.metrics.podMonitor.enabled (not .Values.metrics.podMonitor.authorization) }}
{{- fail "a PodMonitor has no token of Prometheus's own: with metrics.secure set metrics.podMonitor.authorization, for example {credentials: {name: SECRET, key: token}}, or use metrics.serviceMonitor" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) }}
{{- fail "metrics.serviceMonitor needs metrics.service.enabled" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (or .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled) (not .Values.metrics.from) (not .Values.networkPolicy.from) (kindIs "invalid" .Values.networkPolicy.ingress) }}
{{- fail "metrics.from is empty, so every pod could connect: name the NetworkPolicy peers that scrape, for example [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]; [{namespaceSelector: {}}] allows all pods, and a scraper on the host network needs [{ipBlock: {cidr: NETWORK-OF-THE-NODES}}]" }}
{{- end }}
{{- if and (not (kindIs "invalid" .Values.networkPolicy.ingress)) (or .Values.metrics.from .Values.networkPolicy.from) }}
{{- fail "networkPolicy.ingress replaces the rule of metrics.from and networkPolicy.from: write their peers into it, or set it to null" }}
{{- end }}
{{- if and .Values.podDisruptionBudget.enabled (not (kindIs "invalid" .Values.podDisruptionBudget.minAvailable)) (not (kindIs "invalid" .Values.podDisruptionBudget.maxUnavailable)) }}
{{- fail "podDisruptionBudget.minAvailable and maxUnavailable exclude each other: set one of them to null" }}
{{- end }}
{{- if and .Values.podDisruptionBudget.enabled (kindIs "invalid" .Values.podDisruptionBudget.minAvailable) (kindIs "invalid" .Values.podDisruptionBudget.maxUnavailable) }}
{{- fail "podDisruptionBudget: set minAvailable or maxUnavailable, because a budget without either blocks every drain" }}
{{- end }}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
{{- fail "serviceAccount.create is false: name the operator's ServiceAccount in serviceAccount.name" }}
{{- end }}
{{- if eq .Values.serviceAccount.name "default" }}
{{- fail "serviceAccount.name may not be default: every pod of the namespace that names no ServiceAccount would have the operator's rights" }}
{{- end }}
{{- if and (not .Values.metrics.secure) .Values.metrics.tls.secretName }}
{{- fail "metrics.tls.secretName is for metrics.secure: set that to true" }}
{{- end }}
{{- include "tokensource-operator.checkLabels" . }}
{{- include "tokensource-operator.checkArguments" . }}
{{- include "tokensource-operator.checkPod" . }}
{{- end }}

{{- /* Rights to create tokens of ServiceAccounts come with the policy that limits them, or not at all. */}}
{{- define "tokensource-operator.checkServiceAccountTokens" -}}
{{- if .Values.serviceAccountTokens.allowed }}
{{- if not .Values.admissionPolicy.enabled }}
{{- fail "serviceAccountTokens.allowed needs admissionPolicy.enabled: without the policy, the operator's token would suffice to get a token of every ServiceAccount, for every audience" }}
{{- end }}
{{- if and .Values.namespaces (not .Values.serviceAccountTokens.names) }}
{{- fail "serviceAccountTokens.allowed with namespaces: name the ServiceAccounts in serviceAccountTokens.names" }}
{{- end }}
{{- range .Values.serviceAccountTokens.allowed }}
{{- if hasPrefix "https://kubernetes.default.svc" .audience }}
{{- fail (printf "serviceAccountTokens.allowed: %s is an audience of the API server, and tokens for this cluster are never sent" .audience) }}
{{- end }}
{{- end }}
{{- else if .Values.serviceAccountTokens.names }}
{{- fail "serviceAccountTokens.names is for serviceAccountTokens.allowed, which is empty" }}
{{- end }}
{{- end }}

{{- /* Refuses the TokenSource of `helm test` where the operator would not serve it. What an issuer, or a ServiceAccount's owner,
allows is known in the cluster alone: the test says it. */}}
{{- define "tokensource-operator.checkTest" -}}
{{- with and .Values.createOperator .Values.helmTest.spec }}
{{- $tokens := $.Values.serviceAccountTokens }}
{{- if .issuerRef }}
{{- if or .provider .credentials .tls }}
{{- fail "helmTest.spec: provider, credentials and tls are the issuer's; write them, or issuerRef alone" }}
{{- end }}
{{- if not $.Values.issuers.enabled }}
{{- fail "helmTest.spec.issuerRef needs issuers.enabled" }}
{{- end }}
{{- else if $.Values.issuers.required }}
{{- fail "issuers.required leaves TokenSources nothing but issuers: write helmTest.spec.issuerRef" }}
{{- else if not (and .provider .credentials) }}
{{- fail "helmTest.spec: write provider and credentials, or issuerRef" }}
{{- else if .credentials.serviceAccountToken }}
{{- $token := .credentials.serviceAccountToken }}
{{- $oauth2 := default dict .provider.oauth2 }}
{{- $audience := default $oauth2.issuer $token.audience }}
{{- $audiences := list }}
{{- range $tokens.allowed }}
{{- $audiences = append $audiences .audience }}
{{- end }}
{{- if not (has $audience $audiences) }}
{{- fail (printf "helmTest.spec.credentials.serviceAccountToken needs the audience %s in serviceAccountTokens.allowed, with the host of the token endpoint" (default "that the endpoint expects" $audience)) }}
{{- end }}
{{- if and $tokens.names (not (has $token.name $tokens.names)) }}
{{- fail (printf "helmTest.spec.credentials.serviceAccountToken.name: %s is not in serviceAccountTokens.names" $token.name) }}
{{- end }}
{{- else if not .credentials.secretRef }}
{{- fail "helmTest.spec.credentials: write secretRef or serviceAccountToken" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Refuses labels that would break a selector of the chart, or Helm's own record of what it owns. */}}
{{- define "tokensource-operator.checkLabels" -}}
{{- $metrics := .Values.metrics }}
{{- $all := dict
  "commonLabels" .Values.commonLabels "global.commonLabels" .Values.global.commonLabels
  "podLabels" .Values.podLabels "global.podLabels" .Values.global.podLabels
  "deploymentLabels" .Values.deploymentLabels "serviceAccount.labels" .Values.serviceAccount.labels
  "metrics.service.labels" $metrics.service.labels "metrics.serviceMonitor.labels" $metrics.serviceMonitor.labels
  "metrics.podMonitor.labels" $metrics.podMonitor.labels "metrics.prometheusRule.labels" $metrics.prometheusRule.labels
  "metrics.dashboard.labels" $metrics.dashboard.labels }}
{{- if hasKey (default dict $metrics.service.labels) "app.kubernetes.io/component" }}
{{- fail "metrics.service.labels may not set app.kubernetes.io/component: the ServiceMonitor selects by it" }}
{{- end }}
{{- range $value, $labels := $all }}
{{- range $name := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/managed-by" "helm.sh/chart" }}
{{- if hasKey (default dict $labels) $name }}
{{- fail (printf "%s may not set %s: the chart's selectors, or Helm, go by it" $value $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Refuses a flag in extraArgs, or its variable in extraEnv, that has a value of the chart: the operator accepts no flag twice,
and a flag wins over its variable. */}}
{{- define "tokensource-operator.checkArguments" -}}
{{- $values := fromYaml (include "tokensource-operator.valuesOfFlags" .) }}
{{- range .Values.extraArgs }}
{{- if and (hasPrefix "-" .) (not (hasPrefix "--" .)) }}
{{- fail (printf "extraArgs: write %s with two dashes" .) }}
{{- end }}
{{- $flag := . | trimPrefix "--" | splitList "=" | first }}
{{- if and (hasPrefix "--" .) (hasKey $values $flag) }}
{{- fail (printf "extraArgs sets --%s: set the value %s instead" $flag (get $values $flag)) }}
{{- end }}
{{- end }}
{{- $names := list "POD_NAME" "POD_NAMESPACE" }}
{{- range $name, $value := dict "HTTPS_PROXY" .Values.httpsProxy "HTTP_PROXY" .Values.httpProxy "NO_PROXY" .Values.noProxy }}
{{- if $value }}
{{- $names = append $names $name }}
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- $flag := .name | trimPrefix "TOKENSOURCE_" | lower | replace "_" "-" }}
{{- if and (hasPrefix "TOKENSOURCE_" .name) (hasKey $values $flag) }}
{{- fail (printf "extraEnv sets %s: set the value %s instead" .name (get $values $flag)) }}
{{- end }}
{{- if has .name $names }}
{{- fail (printf "extraEnv: the variable %s is set already" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}

{{- /* Refuses what would be in the pod twice: of two members of one name, some readers take the last, and others fail. */}}
{{- define "tokensource-operator.checkPod" -}}
{{- $values := fromYaml (include "tokensource-operator.valuesOfPod" .) }}
{{- range $field := keys .Values.extraPodSpec | sortAlpha }}
{{- if hasKey $values $field }}
{{- fail (printf "extraPodSpec.%s: the chart sets it; %s" $field (get $values $field)) }}
{{- end }}
{{- end }}
{{- $volumes := list "kube-api-access" "probe-socket" "metrics-certificate" }}
{{- range .Values.extraVolumes }}
{{- if has .name $volumes }}
{{- fail (printf "extraVolumes: there is a volume %s already, choose another name" .name) }}
{{- end }}
{{- $volumes = append $volumes .name }}
{{- end }}
{{- $containers := list "operator" }}
{{- range concat .Values.extraContainers .Values.extraInitContainers }}
{{- if has .name $containers }}
{{- fail (printf "extraContainers, extraInitContainers: there is a container %s already, choose another name" .name) }}
{{- end }}
{{- $containers = append $containers .name }}
{{- end }}
{{- $paths := list "/var/run/secrets/kubernetes.io/serviceaccount" "/run/tokensource-operator" "/etc/tokensource-operator/metrics" }}
{{- range .Values.extraVolumeMounts }}
{{- $path := clean .mountPath }}
{{- if has $path $paths }}
{{- fail (printf "extraVolumeMounts: something is mounted at %s already, choose another path" $path) }}
{{- end }}
{{- $paths = append $paths $path }}
{{- end }}
{{- end }}
