{{- define "tokensource-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* 47, so that what is added to it stays within the 63 characters that a name may have. */}}
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

{{- /* Of objects that belong to no namespace: releases of the same name in several namespaces must not meet. */}}
{{- define "tokensource-operator.clusterName" -}}
{{- printf "%s.%s" (include "tokensource-operator.fullname" .) .Release.Namespace }}
{{- end }}

{{- define "tokensource-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tokensource-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tokensource-operator.image" -}}
{{- $version := printf ":%s" (default .Chart.AppVersion .Values.image.tag) }}
{{- with .Values.image.digest }}
{{- $version = printf "@%s" . }}
{{- end }}
{{- printf "%s/%s%s" .Values.image.registry .Values.image.repository $version | trimPrefix "/" }}
{{- end }}

{{- /* A selector cannot be changed by an upgrade: nothing that may change goes in here. */}}
{{- define "tokensource-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tokensource-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tokensource-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tokensource-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tokensource-operator
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The metadata of an object: a dict of root, name, and where they apply namespace, labels and annotations. */}}
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

{{- /* All that the operator does in a namespace that it serves. */}}
{{- define "tokensource-operator.rules" -}}
- apiGroups: [tokensource.dev]
  resources: [tokensources]
  verbs: [get, list, watch]
- apiGroups: [tokensource.dev]
  resources: [tokensources/status]
  verbs: [patch]
# Reads the credentials that a TokenSource names, and writes the targets. Of all other Secrets it receives metadata only.
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
{{- if .Values.promptPropagation.enabled }}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, patch]
{{- end }}
{{- if .Values.namespaceSelector }}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- end }}
{{- end }}

{{- /* What goes together, and what does not: said before anything is installed. */}}
{{- define "tokensource-operator.check" -}}
{{- if and .Values.namespaces .Values.namespaceSelector }}
{{- fail "namespaces and namespaceSelector do not go together: give one of them" }}
{{- end }}
{{- if and (not .Values.leaderElection.enabled) (gt (int .Values.replicaCount) 1) }}
{{- fail "without leaderElection.enabled every replica would ask for every token: set replicaCount to 1" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}
{{- fail "metrics.serviceMonitor and metrics.podMonitor would count everything twice: enable one of them" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) }}
{{- fail "metrics.serviceMonitor needs metrics.service.enabled" }}
{{- end }}
{{- if and .Values.fences.enabled (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "fences need Kubernetes 1.30 (this is %s): set fences.enabled to false" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and .Values.podDisruptionBudget.enabled (not (kindIs "invalid" .Values.podDisruptionBudget.minAvailable)) (not (kindIs "invalid" .Values.podDisruptionBudget.maxUnavailable)) }}
{{- fail "podDisruptionBudget.minAvailable and maxUnavailable do not go together: set one of them to null" }}
{{- end }}
{{- end }}
