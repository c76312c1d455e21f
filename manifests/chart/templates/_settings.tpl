{{/*
The effective settings: the values of this chart, overlaid by those below "secrets-store-csi-driver"
(the spelling of the Azure provider's chart and of the Arc extension), without settings of upstream's
images and helper containers. "install" is false for the provider alone. Returns JSON, for fromJson.
*/}}
{{- define "keyvault-csi.settings" -}}
{{- $values := .Values | toJson | fromJson -}}
{{- $settings := omit $values "secrets-store-csi-driver" -}}
{{- $nested := default (dict) (get $values "secrets-store-csi-driver") -}}
{{- if eq (toString (dig "install" true $nested)) "false" -}}
{{- /* Settings below the prefix are for a driver that is not installed. */ -}}
{{- $nested = dict "install" false -}}
{{- end -}}
{{- /* The provider's chart has one port for metrics; linux and windows have the driver's addresses. */ -}}
{{- with $settings.metricsAddr -}}
{{- $_ := set $settings.linux "metricsAddr" (toString .) -}}
{{- $_ := set $settings.windows "metricsAddr" (toString .) -}}
{{- end -}}
{{- range $os := list "linux" "windows" -}}
{{- $below := omit (default (dict) (get $nested $os)) "image" "registrarImage" "registrar" "livenessProbeImage" "livenessProbe" -}}
{{- $_ := set $nested $os $below -}}
{{- end -}}
{{- include "keyvault-csi.overlay" (dict "base" $settings "over" $nested) -}}
{{- $settings | toJson -}}
{{- end -}}

{{/* Overlays one map with another, in place. mergeOverwrite would ignore false and []. */}}
{{- define "keyvault-csi.overlay" -}}
{{- $base := .base -}}
{{- range $key, $value := .over -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $base $key)) -}}
{{- include "keyvault-csi.overlay" (dict "base" (get $base $key) "over" $value) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $base $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The scope of a template: the settings, and the context of names and labels. Returns JSON. */}}
{{- define "keyvault-csi.scope" -}}
{{- dict "settings" (include "keyvault-csi.settings" . | fromJson) "Release" .Release "Chart" (dict "Name" .Chart.Name "Version" .Chart.Version "AppVersion" .Chart.AppVersion) | toJson -}}
{{- end -}}

{{/* "true" or nothing, for booleans and booleans as text. */}}
{{- define "keyvault-csi.on" -}}
{{- if eq (toString .) "true" -}}true{{- end -}}
{{- end -}}

{{/* "true", or nothing for the provider alone. Argument: the settings. */}}
{{- define "keyvault-csi.driver" -}}
{{- include "keyvault-csi.on" (dig "install" true .) -}}
{{- end -}}

{{/* ":8095" for ":8095", "8095" and 8095; "0" stays and means none. */}}
{{- define "keyvault-csi.address" -}}
{{- $address := toString . -}}
{{- if and (regexMatch "^[0-9]+$" $address) (ne $address "0") -}}:{{- end -}}{{ $address }}
{{- end -}}

{{/*
The address of the health check: on the node's network its loopback, which the kubelet reaches and pods do
not; on the pod network nothing, for every address. Argument: the settings of the system.
*/}}
{{- define "keyvault-csi.loopback" -}}
{{- if include "keyvault-csi.on" .hostNetwork -}}127.0.0.1{{- end -}}
{{- end -}}

{{/* The flags that are the same on both systems. Arguments: settings, os. */}}
{{- define "keyvault-csi.flags" -}}
{{- $s := .settings -}}
- --nodeid=$(KUBE_NODE_NAME)
- --provider-volume={{ .os.providersDir }}
- --additional-provider-volume-paths={{ join "," .os.additionalProvidersDirs }}
- --metrics-addr={{ include "keyvault-csi.address" .os.metricsAddr }}
- --health-addr={{ include "keyvault-csi.loopback" .os }}:{{ $s.livenessProbe.port }}
- --enable-secret-rotation={{ if include "keyvault-csi.on" $s.enableSecretRotation }}true{{ else }}false{{ end }}
{{- with $s.rotationPollInterval }}
- --rotation-poll-interval={{ . }}
{{- end }}
- --sync-secret={{ if include "keyvault-csi.on" $s.syncSecret.enabled }}true{{ else }}false{{ end }}
{{- if ne $s.azureProvider "builtin" }}
- --azure-provider={{ $s.azureProvider }}
{{- end }}
- --max-call-recv-msg-size={{ int64 $s.maxCallRecvMsgSize }}
- --provider-health-check={{ if include "keyvault-csi.on" $s.providerHealthCheck }}true{{ else }}false{{ end }}
{{- if include "keyvault-csi.on" $s.providerHealthCheck }}
- --provider-health-check-interval={{ $s.providerHealthCheckInterval }}
{{- end }}
{{- if include "keyvault-csi.on" $s.startupTaint.enabled }}
- --startup-taint={{ $s.startupTaint.key }}
{{- end }}
{{ include "keyvault-csi.azure-flags" . }}
{{- end -}}

{{/*
The container's directory of custom clouds, or nothing. Arguments: settings, and for Windows clouds, the
directory of a ConfigMap. A directory of the node keeps its path, so that paths in classes stay valid.
*/}}
{{- define "keyvault-csi.cloud-files-dir" -}}
{{- $files := default (dict) .settings.cloudFiles -}}
{{- if and $files.configMap $files.hostPath -}}
{{- fail "cloudFiles: set configMap or hostPath, not both" -}}
{{- end -}}
{{- if $files.configMap -}}{{ default "/etc/keyvault-csi/clouds" .clouds }}{{- else if $files.hostPath -}}{{ $files.hostPath }}{{- end -}}
{{- end -}}

{{/* The mount of those files: the whole directory, because the kubelet does not update a subPath. */}}
{{- define "keyvault-csi.cloud-files-mount" -}}
{{- with include "keyvault-csi.cloud-files-dir" . -}}
- name: cloud-files
  mountPath: {{ . }}
  readOnly: true
{{- end -}}
{{- end -}}

{{- define "keyvault-csi.cloud-files-volume" -}}
{{- $files := default (dict) .settings.cloudFiles -}}
{{- if include "keyvault-csi.cloud-files-dir" . -}}
- name: cloud-files
  {{- if $files.configMap }}
  configMap:
    name: {{ $files.configMap }}
  {{- else }}
  hostPath:
    path: {{ $files.hostPath }}
    type: Directory
  {{- end }}
{{- end -}}
{{- end -}}

{{/* The flags for Azure and for the log, the same for driver and provider. Arguments: settings, os. */}}
{{- define "keyvault-csi.azure-flags" -}}
{{- $s := .settings -}}
- --construct-pem-chain={{ if include "keyvault-csi.on" $s.constructPEMChain }}true{{ else }}false{{ end }}
- --write-cert-and-key-in-separate-files={{ if include "keyvault-csi.on" $s.writeCertAndKeyInSeparateFiles }}true{{ else }}false{{ end }}
{{- with $s.cloudName }}
- --cloud-name={{ . }}
{{- end }}
{{- with include "keyvault-csi.cloud-files-dir" . }}
- --cloud-files-dir={{ . }}
{{- end }}
{{- with $s.tokenProxyURL }}
- --token-proxy-url={{ . }}
{{- end }}
{{- with $s.sniName }}
- --sni-name={{ . }}
{{- end }}
{{- with .os.customUserAgent }}
- --custom-user-agent={{ . }}
{{- end }}
{{- if include "keyvault-csi.on" $s.logFormatJSON }}
- --log-format-json=true
{{- end }}
{{- if ne (toString $s.logVerbosity) "0" }}
- -v={{ $s.logVerbosity }}
{{- end }}
{{- end -}}

{{/* The probes and ports of the container. Arguments: settings, os. */}}
{{- define "keyvault-csi.health" -}}
{{- $metrics := regexFind "[0-9]+$" (include "keyvault-csi.address" .os.metricsAddr) -}}
{{- $loopback := include "keyvault-csi.loopback" .os -}}
ports:
  - name: healthz
    containerPort: {{ .settings.livenessProbe.port }}
    protocol: TCP
{{- if ne $metrics "0" }}
  - name: metrics
    containerPort: {{ $metrics }}
    protocol: TCP
{{- end }}
livenessProbe:
  httpGet:
    {{- with $loopback }}
    host: {{ . }}
    {{- end }}
    path: /healthz
    port: healthz
  initialDelaySeconds: 5
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 5
# The kubelet needs about a second for the registration; a period of 1 s shows it without delay.
readinessProbe:
  httpGet:
    {{- with $loopback }}
    host: {{ . }}
    {{- end }}
    path: /readyz
    port: healthz
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 3
{{- end -}}

{{/* The proxy of the Arc extension, if it is on. */}}
{{- define "keyvault-csi.proxy" -}}
{{- include "keyvault-csi.on" (dig "Azure" "proxySettings" "isProxyEnabled" false .) -}}
{{- end -}}
