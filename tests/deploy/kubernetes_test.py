"""Checks the manifests, and runs their commands here: kubernetes_test.py SOURCE VIRT_COMPACT."""

import os
import subprocess
import sys
import tempfile
import unittest

import yaml

SOURCE, PROGRAM = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
FOLDER = os.path.join(SOURCE, "deploy", "kubernetes")


def manifest(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return yaml.safe_load(file)


def pod(name):
    spec = manifest(name)["spec"]
    return spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]


class Manifests(unittest.TestCase):
    def test_lint(self):
        subprocess.run(["yamllint", "-s", "-c", os.path.join(SOURCE, ".yamllint"), FOLDER], check=True)

    def test_kinds(self):
        for name, kind in (("job.yaml", "Job"), ("cronjob.yaml", "CronJob")):
            made = manifest(name)
            self.assertEqual((made["apiVersion"], made["kind"]), ("batch/v1", kind))
        self.assertEqual(manifest("cronjob.yaml")["spec"]["concurrencyPolicy"], "Forbid")

    def test_pods_have_few_rights(self):
        for name in ("job.yaml", "cronjob.yaml"):
            made = pod(name)
            self.assertEqual(made["restartPolicy"], "Never")
            self.assertTrue(made["securityContext"]["runAsNonRoot"])
            container, = made["containers"]
            rights = container["securityContext"]
            self.assertFalse(rights["allowPrivilegeEscalation"])
            self.assertTrue(rights["readOnlyRootFilesystem"])
            self.assertEqual(rights["capabilities"]["drop"], ["ALL"])
            # Each mount has a volume.
            self.assertEqual({it["name"] for it in container["volumeMounts"]},
                             {it["name"] for it in made["volumes"]})

    def run_container(self, name, folder):
        """Runs the command of the container, with the volume at another place."""
        container, = pod(name)["containers"]
        words = container.get("command", ["virt-compact"]) + container["args"]
        words = [it.replace("/disk/", folder + "/").replace("/disk ", folder + " ") for it in words]
        programs = os.path.join(folder, "bin")
        if not os.path.exists(programs):
            os.mkdir(programs)
            os.symlink(PROGRAM, os.path.join(programs, "virt-compact"))
        environment = {**os.environ, "PATH": programs + ":" + os.environ["PATH"]}
        return subprocess.run(words, check=True, env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True).stdout

    def test_the_commands_optimize_a_disk(self):
        for name in ("job.yaml", "cronjob.yaml"):
            with self.subTest(name=name), tempfile.TemporaryDirectory() as folder:
                disk = os.path.join(folder, "disk.qcow2")
                subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
                # A cluster in use, and zeros.
                subprocess.run(["qemu-io", "-c", "write -P 0 0 32M", "-c", "write -P 7 40M 64k", disk],
                               check=True, stdout=subprocess.DEVNULL)
                self.assertIn('"already-compact": false', self.run_container(name, folder))
                self.assertTrue(os.path.exists(disk + ".bak"))
                self.assertLess(os.path.getsize(disk), 1 << 20)
                if name == "cronjob.yaml":
                    self.assertIn("nothing is done", self.run_container(name, folder))
                os.remove(disk + ".bak")
                self.assertIn('"already-compact": true', self.run_container(name, folder))
                self.assertFalse(os.path.exists(disk + ".bak"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
