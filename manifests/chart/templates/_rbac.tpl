{{/*
"true" if a role needs delete on objects whose owners the driver changes: the admission plug-in
OwnerReferencesPermissionEnforcement requires it. No API lists a server's plug-ins; OpenShift has this
one, and is recognized by its own API. Argument: Helm's context, because the scope has no Capabilities.
*/}}
{{- define "keyvault-csi.owner-references" -}}
{{- $scope := include "keyvault-csi.scope" . | fromJson -}}
{{- $setting := toString $scope.settings.rbac.ownerReferencesPermissionEnforcement -}}
{{- if eq $setting "true" -}}
true
{{- else if and (ne $setting "false") (.Capabilities.APIVersions.Has "security.openshift.io/v1") -}}
true
{{- end -}}
{{- end -}}

{{/* Binds a role to the driver's account. Arguments: scope, binding, role. */}}
{{- define "keyvault-csi.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ .binding }}
  labels:
    {{- include "keyvault-csi.labels" .scope | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ .role }}
subjects:
  - kind: ServiceAccount
    name: secrets-store-csi-driver
    namespace: {{ .scope.Release.Namespace }}
{{- end -}}
