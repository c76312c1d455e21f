{{/*
"true" where a role must have delete on objects whose owners the driver changes: the API server's admission plug-in
OwnerReferencesPermissionEnforcement asks for it. The server does not tell which plug-ins it has; OpenShift has this one, and is known by
its own API. Takes the context of Helm, since the scope has no Capabilities.
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

{{/* Binds one of the node's roles to its account; takes scope, binding and role. */}}
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
