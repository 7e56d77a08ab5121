{{- /* By field of the pod's spec that the chart renders, what to set instead of it in extraPodSpec. */}}
{{- define "tokensource-operator.valuesOfPod" -}}
automountServiceAccountToken: the operator mounts its own token
{{- range $field, $value := dict
  "serviceAccountName" "serviceAccount.name" "serviceAccount" "serviceAccount.name" "securityContext" "podSecurityContext"
  "containers" "extraContainers" "initContainers" "extraInitContainers" "volumes" "extraVolumes" }}
{{ $field }}: set the value {{ $value }} instead
{{- end }}
{{- range list
  "affinity" "dnsConfig" "dnsPolicy" "enableServiceLinks" "hostAliases" "hostNetwork" "hostUsers" "imagePullSecrets" "nodeSelector"
  "priorityClassName" "runtimeClassName" "schedulerName" "terminationGracePeriodSeconds" "tolerations" "topologySpreadConstraints" }}
{{ . }}: set the value {{ . }} instead
{{- end }}
{{- end }}

{{- /* A list of `name: ...`: those of this chart, and those of the parent chart, which may be names alone. */}}
{{- define "tokensource-operator.imagePullSecrets" -}}
{{- $secrets := .Values.imagePullSecrets }}
{{- range .Values.global.imagePullSecrets }}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) }}
{{- end }}
{{- with $secrets }}
{{- toYaml (uniq .) }}
{{- end }}
{{- end }}

{{- /* Constraints of this chart, and those of the parent chart for other keys: Kubernetes refuses one key twice. One without
`labelSelector` gets that of the operator's pods. */}}
{{- define "tokensource-operator.topologySpreadConstraints" -}}
{{- $ours := dict "matchLabels" (fromYaml (include "tokensource-operator.selectorLabels" .)) }}
{{- $constraints := list }}
{{- $keys := list }}
{{- range .Values.topologySpreadConstraints }}
{{- $constraints = append $constraints . }}
{{- $keys = append $keys .topologyKey }}
{{- end }}
{{- range .Values.global.topologySpreadConstraints }}
{{- if not (has .topologyKey $keys) }}
{{- $constraints = append $constraints . }}
{{- end }}
{{- end }}
{{- range $constraints }}
- {{ toYaml (set (omit . "labelSelector") "labelSelector" (default $ours .labelSelector)) | indent 2 | trim }}
{{- end }}
{{- end }}

{{- /* A part of the pod, which `enabled: false` leaves out. */}}
{{- define "tokensource-operator.optional" -}}
{{- if and . (ne (get . "enabled" | toString) "false") }}
{{- with omit . "enabled" }}
{{- toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Likewise a probe, of which a value may replace the handler: a map of the values is merged into the default, and two are
refused. */}}
{{- define "tokensource-operator.probe" -}}
{{- if . }}
{{- if or .httpGet .tcpSocket .grpc }}
{{- include "tokensource-operator.optional" (omit . "exec") }}
{{- else }}
{{- include "tokensource-operator.optional" . }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The first of a list that is not null, though it may be 0 or false. */}}
{{- define "tokensource-operator.firstSet" -}}
{{- range . }}
{{- if not (kindIs "invalid" .) }}
{{- toString . }}
{{- break }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Kubernetes refuses `rollingUpdate` with another type. Without leader election a pod that starts would act beside the one
that ends. */}}
{{- define "tokensource-operator.strategy" -}}
{{- $type := default "RollingUpdate" .Values.strategy.type }}
{{- if ne $type "RollingUpdate" }}
{{- toYaml (omit .Values.strategy "rollingUpdate") }}
{{- else if .Values.leaderElection.enabled }}
{{- toYaml .Values.strategy }}
{{- else }}
{{- toYaml (dict "type" "Recreate") }}
{{- end }}
{{- end }}
