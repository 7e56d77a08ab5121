{{- /* The flags of `tokensource-operator run`. A test fails if a flag has no value of the chart. */}}
{{- define "tokensource-operator.arguments" -}}
{{- $arguments := list }}
{{- range .Values.namespaces }}
{{- $arguments = append $arguments (printf "--namespace=%s" .) }}
{{- end }}
{{- with include "tokensource-operator.namespaceSelector" . }}
{{- $arguments = append $arguments (printf "--namespace-selector=%s" .) }}
{{- end }}
{{- if include "tokensource-operator.isPerNamespace" . }}
{{- $arguments = append $arguments (printf "--served-role=%s" (include "tokensource-operator.servedRole" .)) }}
{{- $arguments = append $arguments (printf "--service-account=%s:%s" (include "tokensource-operator.namespace" .) (include "tokensource-operator.serviceAccountName" .)) }}
{{- $arguments = append $arguments (printf "--namespace-watches=%d" (int .Values.rbac.watches)) }}
{{- end }}
{{- range .Values.egress.allow }}
{{- $arguments = append $arguments (printf "--egress-allow=%s" .) }}
{{- end }}
{{- range .Values.egress.only }}
{{- $arguments = append $arguments (printf "--egress-only=%s" .) }}
{{- end }}
{{- range .Values.egress.deny }}
{{- $arguments = append $arguments (printf "--egress-deny=%s" .) }}
{{- end }}
{{- $arguments = append $arguments (printf "--egress-proxied=%s" .Values.egress.proxied) }}
{{- $arguments = append $arguments (printf "--egress-tenant-ca-bundle=%t" .Values.egress.tenantCABundle) }}
{{- if .Values.allowHTTP }}
{{- $arguments = append $arguments "--allow-http" }}
{{- end }}
{{- if or .Values.proxyFromEnvironment .Values.httpsProxy .Values.httpProxy }}
{{- $arguments = append $arguments "--proxy-from-environment" }}
{{- end }}
{{- with .Values.maxSourcesPerNamespace }}
{{- $arguments = append $arguments (printf "--max-sources-per-namespace=%d" (int .)) }}
{{- end }}
{{- if .Values.requireCredentialsLabel }}
{{- $arguments = append $arguments "--require-credentials-label" }}
{{- end }}
{{- range .Values.serviceAccountTokens.allowed }}
{{- $audience := .audience }}
{{- range .hosts }}
{{- $arguments = append $arguments (printf "--service-account-tokens-allowed=%s=%s" $audience .) }}
{{- end }}
{{- end }}
{{- if .Values.issuers.enabled }}
{{- $arguments = append $arguments (printf "--issuers-namespace=%s" (include "tokensource-operator.namespace" .)) }}
{{- $arguments = append $arguments (printf "--issuers-controller=%s" .Values.issuers.controller) }}
{{- if .Values.issuers.required }}
{{- $arguments = append $arguments "--require-issuer" }}
{{- end }}
{{- end }}
{{- range .Values.templateMetadata.only }}
{{- $arguments = append $arguments (printf "--template-metadata-only=%s" .) }}
{{- end }}
{{- $arguments = append $arguments (printf "--default-propagation-delay=%s" .Values.defaultPropagationDelay) }}
{{- $arguments = append $arguments (printf "--endpoint-max-in-flight=%d" (int .Values.endpoint.maxInFlight)) }}
{{- $arguments = append $arguments (printf "--endpoint-max-per-second=%d" (int .Values.endpoint.maxPerSecond)) }}
{{- $arguments = append $arguments (printf "--leader-elect=%t" .Values.leaderElection.enabled) }}
{{- if .Values.leaderElection.enabled }}
{{- with .Values.leaderElection.namespace }}
{{- $arguments = append $arguments (printf "--leader-election-namespace=%s" .) }}
{{- end }}
{{- $arguments = append $arguments (printf "--leader-election-lease-name=%s" (include "tokensource-operator.fullname" .)) }}
{{- $arguments = append $arguments (printf "--leader-election-lease-duration=%s" .Values.leaderElection.leaseDuration) }}
{{- $arguments = append $arguments (printf "--leader-election-renew-deadline=%s" .Values.leaderElection.renewDeadline) }}
{{- $arguments = append $arguments (printf "--leader-election-retry-period=%s" .Values.leaderElection.retryPeriod) }}
{{- end }}
{{- $arguments = append $arguments (printf "--admin-address=:%s" (include "tokensource-operator.adminPort" .)) }}
{{- if .Values.metrics.secure }}
{{- $arguments = append $arguments "--metrics-secure" }}
{{- if .Values.metrics.tls.secretName }}
{{- $arguments = append $arguments "--metrics-cert-path=/etc/tokensource-operator/metrics" }}
{{- end }}
{{- end }}
{{- $arguments = append $arguments "--probe-socket=/run/tokensource-operator/probe.sock" }}
{{- $arguments = append $arguments (printf "--log-format=%s" .Values.log.format) }}
{{- $arguments = append $arguments (printf "--log-level=%s" .Values.log.level) }}
{{- toYaml (concat $arguments .Values.extraArgs) }}
{{- end }}

{{- /* By flag, the value that sets it. */}}
{{- define "tokensource-operator.valuesOfFlags" -}}
namespace: namespaces
namespace-selector: namespaceSelector
served-role: rbac.mode
service-account: serviceAccount.name
namespace-watches: rbac.watches
egress-allow: egress.allow
egress-only: egress.only
egress-deny: egress.deny
egress-proxied: egress.proxied
egress-tenant-ca-bundle: egress.tenantCABundle
allow-http: allowHTTP
proxy-from-environment: proxyFromEnvironment
max-sources-per-namespace: maxSourcesPerNamespace
require-credentials-label: requireCredentialsLabel
service-account-tokens-allowed: serviceAccountTokens.allowed
issuers-namespace: issuers.enabled
issuers-controller: issuers.controller
require-issuer: issuers.required
template-metadata-only: templateMetadata.only
default-propagation-delay: defaultPropagationDelay
endpoint-max-in-flight: endpoint.maxInFlight
endpoint-max-per-second: endpoint.maxPerSecond
leader-elect: leaderElection.enabled
leader-election-namespace: leaderElection.namespace
leader-election-lease-name: fullnameOverride
leader-election-lease-duration: leaderElection.leaseDuration
leader-election-renew-deadline: leaderElection.renewDeadline
leader-election-retry-period: leaderElection.retryPeriod
admin-address: admin.port
metrics-secure: metrics.secure
metrics-cert-path: metrics.tls.secretName
probe-socket: livenessProbe
log-format: log.format
log-level: log.level
{{- end }}
