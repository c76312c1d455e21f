{{/* Names and labels are upstream's, so that tools, dashboards and policies keep working. */}}

{{/* Name of upstream's chart of the same content, and its pods' label `app`. Argument: the scope. */}}
{{- define "keyvault-csi.app" -}}
{{- if include "keyvault-csi.driver" .settings -}}secrets-store-csi-driver{{- else -}}csi-secrets-store-provider-azure{{- end -}}
{{- end -}}

{{/* Release name and upstream's name, unless the release name contains it. Argument: the scope. */}}
{{- define "keyvault-csi.fullname" -}}
{{- $name := default (include "keyvault-csi.app" .) .settings.nameOverride -}}
{{- if .settings.fullnameOverride -}}
{{- .settings.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/*
The selector of a DaemonSet: immutable, and equal to upstream's, so that its release can be upgraded to
this chart.
*/}}
{{- define "keyvault-csi.selector" -}}
app: {{ include "keyvault-csi.app" . }}
{{- end -}}

{{- define "keyvault-csi.labels" -}}
{{ include "keyvault-csi.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- with .settings.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* repository@digest, or repository:tag. Arguments: os, image, appVersion. */}}
{{- define "keyvault-csi.image" -}}
{{- $image := .image -}}
{{- if regexMatch "csi-secrets-store/driver|secrets-store/(driver|provider-azure)" $image.repository -}}
{{- fail (printf "%s.image.repository is %s: that is upstream's image, not this chart's; remove linux.image and windows.image from values written for upstream's charts" .os $image.repository) -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .appVersion $image.tag | toString) -}}
{{- end -}}
{{- end -}}
