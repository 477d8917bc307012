{{/* Another release in this namespace with the same queue or key prefix would take this one's tasks. Across namespaces
     and clusters the running controller notices (docs/operations.md). */}}
{{- define "alakai.refuseSecondRelease" -}}
{{- $ours := include "alakai.environment" . | fromYaml -}}
{{- range (lookup "v1" "ConfigMap" .Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (get $labels "alakai.dev/configuration") "true") (ne (get $labels "app.kubernetes.io/instance") $.Release.Name) -}}
{{- $other := get $labels "app.kubernetes.io/instance" -}}
{{- if and (get $ours "SQS_QUEUE_URL") (eq (get $ours "SQS_QUEUE_URL") (get .data "SQS_QUEUE_URL" | default "")) -}}
{{- fail (printf "the release %s in this namespace reads the queue %s already: two releases would take each other's tasks; set config.sqsQueueUrl to another queue" $other (get $ours "SQS_QUEUE_URL")) -}}
{{- end -}}
{{- $prefix := get $ours "EXECUTIONS_REDIS_KEY_PREFIX" | default "alakai-executions" -}}
{{- if eq $prefix (get .data "EXECUTIONS_REDIS_KEY_PREFIX" | default "alakai-executions") -}}
{{- fail (printf "the release %s in this namespace uses the key prefix %s already; set config.executionsRedisKeyPrefix to another one" $other $prefix) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
