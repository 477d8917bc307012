{{- define "alakai.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "alakai.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "alakai.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "alakai.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "alakai.selectorLabels" -}}
app.kubernetes.io/name: {{ include "alakai.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "alakai.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "alakai.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: alakai
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of every object: (dict "root" $ "suffix" "-api" "component" "api" "labels" … "annotations" …) */}}
{{- define "alakai.metadata" -}}
name: {{ include "alakai.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "alakai.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "alakai.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "alakai.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is required when serviceAccount.create is false: name the ServiceAccount to use" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "alakai.image" -}}
{{- $registry := .image.registry | default .root.Values.image.registry -}}
{{- $reference := .image.repository -}}
{{- if $registry -}}{{- $reference = printf "%s/%s" $registry $reference -}}{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $reference .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $reference (.image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "alakai.launcherFile" -}}
{{- if .Values.launcher.file -}}/etc/alakai/config/launcher.yaml{{- end -}}
{{- end -}}

{{/* The environment of both containers, from values.config; names become upper snake case: maxRetries → MAX_RETRIES */}}
{{- define "alakai.environment" -}}
{{- $environment := dict -}}
{{- range $name, $value := .Values.config -}}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) -}}
{{- $text := "" -}}
{{- if kindIs "slice" $value -}}
{{- $text = join "," $value -}}
{{- else if kindIs "map" $value -}}
{{- $pairs := list -}}
{{- range $key, $item := $value -}}{{- $pairs = append $pairs (printf "%s=%v" $key $item) -}}{{- end -}}
{{- $text = join "," $pairs -}}
{{- else if kindIs "float64" $value -}}
{{- $text = toString (ternary (int64 $value) $value (eq (float64 (int64 $value)) $value)) -}}
{{- else -}}
{{- $text = toString $value -}}
{{- end -}}
{{- if ne $text "" -}}
{{- $_ := set $environment (regexReplaceAll "([a-z0-9])([A-Z])" $name "${1}_${2}" | upper) $text -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.launcher.name -}}{{- $_ := set $environment "LAUNCHER" . -}}{{- end -}}
{{- if .Values.launcher.file -}}
{{- $_ := set $environment (printf "%s_LAUNCHER_FILE" (.Values.launcher.name | upper)) (include "alakai.launcherFile" .) -}}
{{- end -}}
{{- with .Values.aws.region -}}{{- $_ := set $environment "AWS_REGION" . -}}{{- end -}}
{{- with .Values.aws.endpointUrl -}}{{- $_ := set $environment "AWS_ENDPOINT_URL" . -}}{{- end -}}
{{- if .Values.aws.credentials.secretName -}}
{{- $_ := set $environment "AWS_SHARED_CREDENTIALS_FILE" "/etc/alakai/secrets/aws/credentials" -}}
{{- end -}}
{{- if not (hasKey $environment "CALLBACK_URL") -}}
{{- $_ := set $environment "CALLBACK_URL" (printf "http://%s-api.%s.svc:%d/task-complete" (include "alakai.fullname" .) .Release.Namespace (int .Values.api.service.port)) -}}
{{- end -}}
{{- $_ := set $environment "EXECUTIONS_NAMESPACE" .Release.Namespace -}}
{{- $_ := set $environment "INSTALLATION" (printf "%s/%s" .Release.Namespace .Release.Name) -}}
{{- $_ := set $environment "PORT" (toString .Values.api.port) -}}
{{- $_ := set $environment "CONTROLLER_PORT" (toString .Values.controller.port) -}}
{{- $_ := set $environment "API_PROBE_PORT" (toString .Values.api.probePort) -}}
{{- $_ := set $environment "REDIS_URL_FILE" "/etc/alakai/secrets/redis/url" -}}
{{- if .Values.redis.tracking.secretName -}}
{{- $_ := set $environment "TASK_TRACKING_REDIS_URL_FILE" "/etc/alakai/secrets/redis-tracking/url" -}}
{{- end -}}
{{- if .Values.tracking.visibility -}}
{{- $_ := set $environment "TASK_VISIBILITY_FILE" "/etc/alakai/config/visibility.yaml" -}}
{{- end -}}
{{- if .Values.notifications.file -}}
{{- $_ := set $environment "NOTIFICATIONS_FILE" "/etc/alakai/config/notifications.yaml" -}}
{{- end -}}
{{- if .Values.callbackTokens.secretName -}}
{{- $_ := set $environment "CALLBACK_TOKEN_KEYS_FILE" "/etc/alakai/secrets/callback-tokens/keys" -}}
{{- $_ := set $environment "CALLBACK_TOKEN_REQUIRED" (toString .Values.callbackTokens.required) -}}
{{- end -}}
{{- with .Values.dashboard.googleClientIds -}}
{{- $_ := set $environment "TASK_DASHBOARD_GOOGLE_CLIENT_IDS" (join "," .) -}}
{{- end -}}
{{- with .Values.dashboard.googleDomains -}}
{{- $_ := set $environment "TASK_DASHBOARD_GOOGLE_DOMAINS" (join "," .) -}}
{{- end -}}
{{- with .Values.dashboard.allowedUsers -}}
{{- $_ := set $environment "TASK_DASHBOARD_ALLOWED_USERS" (join "," .) -}}
{{- end -}}
{{- toYaml $environment -}}
{{- end -}}

{{/* Secrets and configuration as files, for both containers */}}
{{- define "alakai.volumeMounts" -}}
- { name: tmp, mountPath: /tmp }
- { name: redis, mountPath: /etc/alakai/secrets/redis, readOnly: true }
{{- if .Values.redis.tracking.secretName }}
- { name: redis-tracking, mountPath: /etc/alakai/secrets/redis-tracking, readOnly: true }
{{- end }}
{{- if .Values.redis.ca.secretName }}
- { name: redis-ca, mountPath: /etc/alakai/secrets/redis-ca, readOnly: true }
{{- end }}
{{- if .Values.callbackTokens.secretName }}
- { name: callback-tokens, mountPath: /etc/alakai/secrets/callback-tokens, readOnly: true }
{{- end }}
{{- if .Values.aws.credentials.secretName }}
- { name: aws, mountPath: /etc/alakai/secrets/aws, readOnly: true }
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "alakai.volumes" -}}
- name: tmp
  emptyDir: { sizeLimit: 64Mi }
- name: redis
  secret:
    secretName: {{ required "redis.url.secretName is required: name a Secret that holds the Redis URL" .Values.redis.url.secretName }}
    items: [{ key: {{ .Values.redis.url.key }}, path: url }]
{{- with .Values.redis.tracking }}
{{- if .secretName }}
- name: redis-tracking
  secret:
    secretName: {{ .secretName }}
    items: [{ key: {{ .key }}, path: url }]
{{- end }}
{{- end }}
{{- with .Values.redis.ca }}
{{- if .secretName }}
- name: redis-ca
  secret:
    secretName: {{ .secretName }}
    items: [{ key: {{ .key }}, path: ca.crt }]
{{- end }}
{{- end }}
{{- with .Values.callbackTokens }}
{{- if .secretName }}
- name: callback-tokens
  secret:
    secretName: {{ .secretName }}
    items: [{ key: {{ .key }}, path: keys }]
{{- end }}
{{- end }}
{{- with .Values.notifications.secretName }}
- name: notifications
  secret: { secretName: {{ . }} }
{{- end }}
{{- with .Values.aws.credentials }}
{{- if .secretName }}
- name: aws
  secret:
    secretName: {{ .secretName }}
    items: [{ key: {{ .key }}, path: credentials }]
{{- end }}
{{- end }}
- name: config
  configMap:
    name: {{ include "alakai.fullname" . }}-files
- name: kubernetes-api
  projected:
    defaultMode: 0444
    sources:
      - serviceAccountToken: { path: token, expirationSeconds: 3600 }
      - configMap: { name: kube-root-ca.crt, items: [{ key: ca.crt, path: ca.crt }] }
      - downwardAPI: { items: [{ path: namespace, fieldRef: { fieldPath: metadata.namespace } }] }
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A probe of one container: (dict "path" … "port" … "timings" …) */}}
{{- define "alakai.probe" -}}
httpGet:
  path: {{ .path | quote }}
  port: {{ .port }}
{{- toYaml .timings | nindent 0 }}
{{- end -}}
