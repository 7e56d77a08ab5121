{{- define "tokensource-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* 47: with the suffixes that are added, names stay within 63 characters. */}}
{{- define "tokensource-operator.fullname" -}}
{{- $name := include "tokensource-operator.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 47 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 47 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 47 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* The namespace of the operator. */}}
{{- define "tokensource-operator.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- /* For cluster-scoped objects: releases of the same name in several namespaces must not collide. */}}
{{- define "tokensource-operator.clusterName" -}}
{{- printf "%s.%s" (include "tokensource-operator.fullname" .) (include "tokensource-operator.namespace" .) }}
{{- end }}

{{- define "tokensource-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tokensource-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tokensource-operator.image" -}}
{{- $version := printf ":%s" (default .Chart.AppVersion .Values.image.tag) }}
{{- with .Values.image.digest }}
{{- $version = printf "@%s" . }}
{{- end }}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry | trimSuffix "/" }}
{{- printf "%s/%s%s" $registry .Values.image.repository $version | trimPrefix "/" }}
{{- end }}

{{- /* An upgrade cannot change a selector: only values that never change belong here. */}}
{{- define "tokensource-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tokensource-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* A label of the values replaces those that no selector uses; the others are refused (`_checks.tpl`). */}}
{{- define "tokensource-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tokensource-operator.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- $ours := dict "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/part-of" "tokensource-operator" }}
{{ toYaml (merge (dict) .Values.commonLabels .Values.global.commonLabels $ours) }}
{{- end }}

{{- /* The metadata of an object. Takes a dict of root and name, and optionally namespace, labels and annotations. */}}
{{- define "tokensource-operator.metadata" -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels:
  {{- $labels := fromYaml (include "tokensource-operator.labels" .root) }}
  {{- toYaml (merge (dict) (default (dict) .labels) $labels) | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The port of the admin server. */}}
{{- define "tokensource-operator.adminPort" -}}
{{- .Values.metrics.secure | ternary .Values.metrics.tls.port .Values.admin.port | int }}
{{- end }}

{{- /* Not empty if objects of this kind of the Prometheus Operator are rendered. Takes a dict of root and kind. */}}
{{- define "tokensource-operator.rendersMonitoring" -}}
{{- $mode := .root.Values.metrics.renderMode }}
{{- $known := .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) }}
{{- if and (eq $mode "failIfMissing") (not $known) }}
{{- fail (printf "metrics.renderMode is failIfMissing, and the cluster has no %s in monitoring.coreos.com/v1: install the Prometheus Operator first" .kind) }}
{{- end }}
{{- if or $known (ne $mode "skipIfMissing") }}true{{ end }}
{{- end }}

{{- /* Not empty where the operator has its rights by namespace. */}}
{{- define "tokensource-operator.isPerNamespace" -}}
{{- if and (eq .Values.rbac.mode "perNamespace") (not .Values.namespaces) }}true{{ end }}
{{- end }}

{{- /* The ClusterRole that namespaces bind. */}}
{{- define "tokensource-operator.servedRole" -}}
{{- printf "%s-served" (include "tokensource-operator.clusterName" .) }}
{{- end }}

{{- /* The rights of the operator wherever it looks for TokenSources. */}}
{{- define "tokensource-operator.sourceRules" -}}
- apiGroups: [tokensource.dev]
  resources: [tokensources]
  verbs: [get, list, watch]
- apiGroups: [tokensource.dev]
  resources: [tokensources/status]
  verbs: [patch]
{{- if .Values.namespaceSelector }}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- end }}
{{- end }}

{{- /* The rights of the operator in each namespace that it serves. */}}
{{- define "tokensource-operator.servedRules" -}}
# Reads the credentials that a TokenSource names, and writes target Secrets. It receives only the metadata of other Secrets.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
# Certificate authorities that a TokenSource names in spec.tls.caBundle.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if .Values.serviceAccountTokens.allowed }}
# Tokens of ServiceAccounts that consent by an annotation. The admission policy limits their audience and lifetime.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get]
  {{- with .Values.serviceAccountTokens.names }}
  resourceNames: {{ toJson . }}
  {{- end }}
- apiGroups: [""]
  resources: [serviceaccounts/token]
  verbs: [create]
  {{- with .Values.serviceAccountTokens.names }}
  resourceNames: {{ toJson . }}
  {{- end }}
{{- end }}
{{- if .Values.promptPropagation.enabled }}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, patch]
{{- end }}
{{- end }}

{{- /* namespaceSelector as the flag takes it. */}}
{{- define "tokensource-operator.namespaceSelector" -}}
{{- $terms := list }}
{{- range $key, $value := .Values.namespaceSelector.matchLabels }}
{{- $terms = append $terms (printf "%s=%s" $key $value) }}
{{- end }}
{{- range .Values.namespaceSelector.matchExpressions }}
{{- $form := get (dict "In" "%s in (%s)" "NotIn" "%s notin (%s)" "Exists" "%s%s" "DoesNotExist" "!%s%s") .operator }}
{{- $terms = append $terms (printf $form .key (default list .values | join ",")) }}
{{- end }}
{{- join "," $terms }}
{{- end }}

{{- /* A namespace as text of the admission policy. The operator's own is not named, so that kustomize can change it in one
place. Takes a dict of root and namespace (empty: the release's). */}}
{{- define "tokensource-operator.namespaceInPolicy" -}}
{{- if or (not .namespace) (eq .namespace (include "tokensource-operator.namespace" .root)) -}}
variables.ownNamespace
{{- else -}}
'{{ .namespace }}'
{{- end }}
{{- end }}

{{- /* The CEL expression of the admission policy that is true in a namespace that is served; empty: in all. */}}
{{- define "tokensource-operator.servedNamespaces" -}}
{{- $terms := list }}
{{- if .Values.namespaces }}
{{- $names := list }}
{{- range .Values.namespaces | uniq | sortAlpha }}
{{- $names = append $names (include "tokensource-operator.namespaceInPolicy" (dict "root" $ "namespace" .)) }}
{{- end }}
{{- $terms = append $terms (printf "request.?namespace.orValue('') in [%s]" (join ", " $names)) }}
{{- end }}
{{- $labels := "variables.namespaceLabels" }}
{{- range $key, $value := .Values.namespaceSelector.matchLabels }}
{{- $terms = append $terms (printf "%s[?'%s'] == optional.of('%s')" $labels $key $value) }}
{{- end }}
{{- range .Values.namespaceSelector.matchExpressions }}
{{- $has := ternary (printf "'%s' in %s" .key $labels) (printf "!('%s' in %s)" .key $labels) (has .operator (list "In" "Exists")) }}
{{- $in := printf "%s[?'%s'].orValue('') in %s" $labels .key (default list .values | toJson) }}
{{- if eq .operator "In" }}
{{- $has = printf "(%s && %s)" $has $in }}
{{- else if eq .operator "NotIn" }}
{{- $has = printf "(%s || !(%s))" $has $in }}
{{- end }}
{{- $terms = append $terms $has }}
{{- end }}
{{- if .Values.namespaceSelector }}
{{- $terms = prepend $terms "namespaceObject != null" }}
{{- end }}
{{- join " && " $terms }}
{{- end }}
