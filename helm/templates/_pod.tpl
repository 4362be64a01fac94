{{- /* What the pods have in common. */ -}}

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

{{- /* What a pod says of where and as whom it runs. */ -}}
{{- define "postroom.placement" -}}
automountServiceAccountToken: false
# Kubernetes would describe every Service in variables, and one named "postroom" as POSTROOM_PORT
# and the like: names that belong to the configuration.
enableServiceLinks: false
# The first process of a process namespace does not hear a signal that it has no handler for, so a
# pod that is stopped in its first second would wait for its whole grace; and it inherits orphans.
shareProcessNamespace: true
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
{{- end -}}

{{- /* Pods of one kind on different nodes and in different zones, where that is possible. */ -}}
{{- define "postroom.spread" -}}
topologySpreadConstraints:
{{- if .root.Values.topologySpreadConstraints }}
  {{- toYaml .root.Values.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "postroom.componentSelector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* A pod of the service, beside its containers. `.config` is the ConfigMap's name. */ -}}
{{- define "postroom.pod" -}}
serviceAccountName: {{ .serviceAccount }}
{{ include "postroom.placement" . }}
volumes:
  - name: config
    configMap:
      name: {{ .config }}
  - name: secrets
    projected:
      defaultMode: 0440
      sources:
        {{- include "postroom.secretFile" (dict "from" .root.Values.database "path" "database_url") | nindent 8 }}
        {{- include "postroom.secretFile" (dict "from" .root.Values.redis "path" "redis_url") | nindent 8 }}
        {{- if .root.Values.encryptionKey.existingSecret }}
        {{- include "postroom.secretFile" (dict "from" .root.Values.encryptionKey "path" "encryption_key") | nindent 8 }}
        {{- end }}
        {{- if .root.Values.previousEncryptionKey.existingSecret }}
        {{- include "postroom.secretFile" (dict "from" .root.Values.previousEncryptionKey "path" "previous_encryption_key") | nindent 8 }}
        {{- end }}
        {{- if .root.Values.webhooks.ca.existingSecret }}
        {{- include "postroom.secretFile" (dict "from" .root.Values.webhooks.ca "path" "webhooks_ca") | nindent 8 }}
        {{- end }}
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

{{- define "postroom.secretFile" -}}
- secret:
    name: {{ .from.existingSecret }}
    items:
      - key: {{ .from.key }}
        path: {{ .path }}
{{- end -}}

{{- define "postroom.image.spec" -}}
image: {{ include "postroom.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
{{- end -}}

{{- /* What every container of the service says beside its arguments and probes. */ -}}
{{- define "postroom.container" -}}
{{ include "postroom.image.spec" . }}
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
