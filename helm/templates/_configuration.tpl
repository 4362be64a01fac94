{{- /* The configuration file, and the times that follow from it. */ -}}

{{- /*
The configuration file. Secrets are read from the files of mounted Secrets, so the ConfigMap
names where a secret lies and never holds one.
*/ -}}
{{- define "postroom.config" -}}
{{- include "postroom.refuseSecrets" (dict "at" "config" "value" .Values.config) -}}
{{- $written := include "postroom.written" . | fromYaml -}}
{{- include "postroom.refuseTwice" (dict "at" "config" "given" .Values.config "written" $written) -}}
{{- $defaults := dict "dispatch" (dict "shutdown_grace" (include "postroom.shutdownGrace" .)) -}}
{{- mergeOverwrite $defaults (deepCopy .Values.config) $written | toYaml -}}
{{- end -}}

{{- /* What the chart's own values say in the configuration. */ -}}
{{- define "postroom.written" -}}
database_url_file: /run/secrets/postroom/database_url
redis_url_file: /run/secrets/postroom/redis_url
{{- if .Values.encryptionKey.existingSecret }}
encryption_key_file: /run/secrets/postroom/encryption_key
{{- end }}
{{- if .Values.previousEncryptionKey.existingSecret }}
previous_encryption_key_file: /run/secrets/postroom/previous_encryption_key
{{- end }}
{{- with .Values.api.trustedProxies }}
api:
  trusted_proxies: {{ toJson . }}
{{- end }}
{{- with .Values.webhooks }}
{{- if or .allowHttp .allowPrivate .allowedNetworks .ca.existingSecret }}
webhooks:
  {{- if .allowHttp }}
  allow_http: true
  {{- end }}
  {{- if .allowPrivate }}
  allow_private: true
  {{- end }}
  {{- with .allowedNetworks }}
  allowed_networks: {{ toJson . }}
  {{- end }}
  {{- if .ca.existingSecret }}
  ca_file: /run/secrets/postroom/webhooks_ca
  {{- end }}
{{- end }}
{{- end }}
# Beside the API's own port, so that figures do not go where requests come from; a worker has no other.
metrics:
  host: {{ .Values.api.host | quote }}
  port: 8001
{{- if .Values.sandbox.enabled }}
# The tenant's MX: it needs no login, so test keys keep their own senders.
sandbox:
  enabled: true
  host: {{ include "postroom.fullname" . }}-sandbox
  port: 2525
  tls: opportunistic
{{- end }}
{{- end -}}

{{- /* Stop where a setting is given in `config` and by a value of the chart too. */ -}}
{{- define "postroom.refuseTwice" -}}
{{- range $name, $written := .written -}}
{{- if hasKey $.given $name -}}
{{- $at := printf "%s.%s" $.at $name -}}
{{- $given := get $.given $name -}}
{{- if and (kindIs "map" $written) (kindIs "map" $given) -}}
{{- include "postroom.refuseTwice" (dict "at" $at "given" $given "written" $written) -}}
{{- else -}}
{{- fail (printf "%s is written by the chart%s" $at (include "postroom.valueFor" $at)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Which value of the chart says what a setting would. */ -}}
{{- define "postroom.valueFor" -}}
{{- $values := dict
  "config.database_url_file" "database.existingSecret"
  "config.redis_url_file" "redis.existingSecret"
  "config.encryption_key_file" "encryptionKey.existingSecret"
  "config.previous_encryption_key_file" "previousEncryptionKey.existingSecret"
  "config.api.trusted_proxies" "api.trustedProxies"
  "config.webhooks.allow_http" "webhooks.allowHttp"
  "config.webhooks.allow_private" "webhooks.allowPrivate"
  "config.webhooks.allowed_networks" "webhooks.allowedNetworks"
  "config.webhooks.ca_file" "webhooks.ca.existingSecret"
  "config.metrics.host" "api.host"
-}}
{{- if hasPrefix "config.sandbox." . -}}
: use the value sandbox.enabled, or leave that one alone
{{- else if hasKey $values . -}}
: use the value {{ get $values . }}, or leave that one alone
{{- end -}}
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

{{- /*
How long a process that is told to stop may finish what is in hand: unless the configuration
says it, half a minute longer than the longest wait for the reply to a dot, so that a planned
restart leaves nobody uncertain. A worker with nothing in hand ends at once.
*/ -}}
{{- define "postroom.shutdownGrace" -}}
{{- $given := dig "dispatch" "shutdown_grace" "" .Values.config | toString -}}
{{- if $given -}}
{{- $given -}}
{{- else -}}
{{- printf "%ds" (add 30 (include "postroom.dotTimeout" . | int64)) -}}
{{- end -}}
{{- end -}}

{{- /* The longest time, in seconds, that a route waits for the reply to its dot (RFC 5321 §4.5.3.2.6: ten minutes). */ -}}
{{- define "postroom.dotTimeout" -}}
{{- $longest := 600 -}}
{{- range $index, $route := dig "routes" list .Values.config -}}
{{- $dot := dig "timeouts" "dot" "" $route | toString -}}
{{- if $dot -}}
{{- $longest = max $longest (include "postroom.seconds" (dict "at" (printf "config.routes[%d].timeouts.dot" $index) "value" $dot) | int64) -}}
{{- end -}}
{{- end -}}
{{- $longest -}}
{{- end -}}

{{- define "postroom.graceSeconds" -}}
{{- include "postroom.seconds" (dict "at" "config.dispatch.shutdown_grace" "value" (include "postroom.shutdownGrace" .)) -}}
{{- end -}}

{{- /*
A worker's pod: what it has in hand, then the calls of webhooks that are under way, and a
margin to write it all down.
*/ -}}
{{- define "postroom.workerGrace" -}}
{{- $calls := include "postroom.seconds" (dict "at" "config.webhooks.timeout" "value" (dig "webhooks" "timeout" "15s" .Values.config)) -}}
{{- add (include "postroom.graceSeconds" . | int64) (int64 $calls) (int64 .Values.worker.graceMarginSeconds) -}}
{{- end -}}

{{- /* An API's pod: until the load balancers have noticed, then the requests in hand. */ -}}
{{- define "postroom.apiGrace" -}}
{{- add (int64 .Values.api.drainSeconds) (include "postroom.graceSeconds" . | int64) (int64 .Values.api.graceMarginSeconds) -}}
{{- end -}}
