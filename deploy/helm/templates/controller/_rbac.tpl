{{- define "alakai.clusterName" -}}
{{- printf "%s.%s" .Release.Namespace (include "alakai.fullname" .) -}}
{{- end -}}

{{/* As controller/epoch.py names it. */}}
{{- define "alakai.epochConfigMap" -}}
{{- $prefix := .Values.config.executionsRedisKeyPrefix | default "alakai-executions" -}}
{{- printf "alakai-epoch-%s" (sha256sum $prefix | trunc 10) -}}
{{- end -}}

{{/* Where workers' Jobs live; empty unless workers are Jobs. */}}
{{- define "alakai.jobsNamespace" -}}
{{- if eq .Values.launcher.name "kubernetes" -}}
{{- default .Release.Namespace (.Values.launcher.file | default dict).namespace -}}
{{- end -}}
{{- end -}}

{{- define "alakai.jobRules" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
{{- end -}}
