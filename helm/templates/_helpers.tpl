{{- /* Names, labels and the parts that the three kinds of pod have in common. */ -}}

{{- define "postroom.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 50 characters, so that "-migrate" and what Kubernetes appends still fit into 63. */ -}}
{{- define "postroom.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "postroom.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "postroom.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "postroom.selector" -}}
app.kubernetes.io/name: {{ include "postroom.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "postroom.labels" -}}
{{ include "postroom.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "postroom.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "postroom.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "postroom.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /*
The configuration file. The two addresses are read from the files of mounted Secrets, so the
ConfigMap names where a secret lies and never holds one.
*/ -}}
{{- define "postroom.config" -}}
{{- include "postroom.refuseSecrets" (dict "at" "config" "value" .Values.config) -}}
{{- $addresses := dict "database_url_file" "/run/secrets/postroom/database_url" "redis_url_file" "/run/secrets/postroom/redis_url" -}}
{{- range $name, $file := $addresses -}}
{{- if hasKey $.Values.config $name -}}
{{- fail (printf "config.%s is written by the chart: name the Secret in %s.existingSecret" $name (trimSuffix "_url_file" $name)) -}}
{{- end -}}
{{- end -}}
{{- merge $addresses .Values.config | toYaml -}}
{{- end -}}

{{- /*
Stop when a secret is about to be written into the ConfigMap: by the name of its field, or
because it is an address with a password in it. The value itself is not repeated.
*/ -}}
{{- define "postroom.refuseSecrets" -}}
{{- $at := .at -}}
{{- if kindIs "map" .value -}}
{{- range $name, $value := .value -}}
{{- if regexMatch "(?i)(^|_)(password|secret|token|private_key|encryption_key|database_url|redis_url)$" $name -}}
{{- fail (printf "%s.%s is a secret and would be readable in a ConfigMap: put it into a Secret (database, redis, routeSecrets) and write %s_file here" $at $name $name) -}}
{{- end -}}
{{- include "postroom.refuseSecrets" (dict "at" (printf "%s.%s" $at $name) "value" $value) -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range $index, $value := .value -}}
{{- include "postroom.refuseSecrets" (dict "at" (printf "%s[%d]" $at $index) "value" $value) -}}
{{- end -}}
{{- else if kindIs "string" .value -}}
{{- if regexMatch "(://[^/@[:space:]]*:[^/@[:space:]]+@|-----BEGIN [A-Z ]*PRIVATE KEY-----)" .value -}}
{{- fail (printf "%s holds a password or a private key and would be readable in a ConfigMap: put it into a Secret" $at) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Whole seconds, rounded up, of a time as the service writes it: 30s, 10m, 24h, 500ms, 2d or a number. */ -}}
{{- define "postroom.seconds" -}}
{{- $text := toString .value -}}
{{- $form := "^([0-9]+(?:\\.[0-9]+)?) *(ms|s|m|h|d)?$" -}}
{{- if not (regexMatch $form $text) -}}
{{- fail (printf "%s must be a time such as 30s, 10m or 24h" .at) -}}
{{- end -}}
{{- $unit := regexReplaceAll $form $text "${2}" | default "s" -}}
{{- $factor := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) $unit -}}
{{- mulf (regexReplaceAll $form $text "${1}" | float64) $factor | ceil | int64 -}}
{{- end -}}

{{- /* The time in which a worker finishes what is in hand, and a margin to write it down. */ -}}
{{- define "postroom.workerGrace" -}}
{{- $grace := dig "dispatch" "shutdown_grace" "60s" .Values.config -}}
{{- $seconds := include "postroom.seconds" (dict "at" "config.dispatch.shutdown_grace" "value" $grace) -}}
{{- add (int64 $seconds) (int64 .Values.worker.graceMarginSeconds) -}}
{{- end -}}

{{- define "postroom.podMetadata" -}}
labels:
  {{- include "postroom.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # A changed configuration starts new pods; nothing reads it a second time.
  checksum/config: {{ include "postroom.config" .root | sha256sum }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* What a pod says beside its containers. `.config` is the ConfigMap's name. */ -}}
{{- define "postroom.pod" -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: false
# Kubernetes would describe every Service in variables, and one named "postroom" as POSTROOM_PORT
# and the like: names that belong to the configuration.
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: config
    configMap:
      name: {{ .config }}
  - name: secrets
    projected:
      defaultMode: 0440
      sources:
        - secret:
            name: {{ .root.Values.database.existingSecret }}
            items:
              - key: {{ .root.Values.database.key }}
                path: database_url
        - secret:
            name: {{ .root.Values.redis.existingSecret }}
            items:
              - key: {{ .root.Values.redis.key }}
                path: redis_url
  {{- range .root.Values.routeSecrets }}
  - name: route-{{ .name }}
    secret:
      secretName: {{ .existingSecret }}
      defaultMode: 0440
  {{- end }}
  # The root file system is read-only; large request bodies are spooled here.
  - name: tmp
    emptyDir:
      sizeLimit: 1Gi
{{- end -}}

{{- /* What every container says beside its arguments and probes. */ -}}
{{- define "postroom.container" -}}
image: {{ include "postroom.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
env:
  - name: POSTROOM_CONFIG
    value: /etc/postroom/postroom.yaml
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  - name: config
    mountPath: /etc/postroom
    readOnly: true
  - name: secrets
    mountPath: /run/secrets/postroom
    readOnly: true
  {{- range .Values.routeSecrets }}
  - name: route-{{ .name }}
    mountPath: /run/secrets/routes/{{ .name }}
    readOnly: true
  {{- end }}
  - name: tmp
    mountPath: /tmp
{{- end -}}
