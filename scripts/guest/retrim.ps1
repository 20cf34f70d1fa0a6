# Makes Windows discard freed blocks once a week: creates a scheduled task that trims all fixed NTFS and
# ReFS volumes (Optimize-Volume -ReTrim), and enables trims when files are deleted.
#
# Run in the guest, in a PowerShell that was started as administrator:
#
#   powershell -ExecutionPolicy Bypass -File retrim.ps1            create the task, and trim now
#   powershell -ExecutionPolicy Bypass -File retrim.ps1 -Remove    remove the task
#
# The disk must pass trims on: use virt-compact tune on the host.  Windows trims only disks that report
# thin provisioning or solid-state storage; virtio-scsi disks do.
[CmdletBinding()]
param(
  [switch]$Remove,
  [string]$TaskName = 'virt-compact ReTrim',
  [DayOfWeek]$Day = 'Sunday',
  [DateTime]$At = '03:00'
)
$ErrorActionPreference = 'Stop'

if ($Remove) {
  Unregister-ScheduledTask -TaskName $TaskName -Confirm:$false
  return
}

# With 0, deleted files are trimmed immediately.
fsutil behavior set DisableDeleteNotify 0 | Out-Null

$trim = @'
Get-Volume |
  Where-Object { $_.DriveType -eq 'Fixed' -and $_.FileSystemType -in 'NTFS', 'ReFS' } |
  Optimize-Volume -ReTrim
'@
$encoded = [Convert]::ToBase64String([Text.Encoding]::Unicode.GetBytes($trim))
$action = New-ScheduledTaskAction -Execute 'powershell.exe' `
  -Argument "-NoProfile -NonInteractive -EncodedCommand $encoded"
$trigger = New-ScheduledTaskTrigger -Weekly -DaysOfWeek $Day -At $At
$settings = New-ScheduledTaskSettingsSet -StartWhenAvailable -ExecutionTimeLimit '06:00:00'
Register-ScheduledTask -TaskName $TaskName -Action $action -Trigger $trigger -Settings $settings `
  -User 'SYSTEM' -RunLevel Highest -Force | Out-Null
Start-ScheduledTask -TaskName $TaskName
Write-Output "'$TaskName' is set up, and runs now."
