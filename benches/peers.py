"""Writes the same 2 N paths as an Ansible playbook and a pyinfra deploy, under one directory.

usage: peers.py DIRECTORY N
"""

import pathlib
import sys

directory, number = pathlib.Path(sys.argv[1]), int(sys.argv[2])
directory.mkdir(parents=True)
tree = directory / "tree"

tasks = ["- hosts: localhost", "  gather_facts: false", "  tasks:"]
deploy = ["from io import StringIO", "from pyinfra.operations import files"]
tasks.append(f"    - ansible.builtin.file: {{ path: '{tree}/etc', state: directory, mode: '0755' }}")
deploy.append(f"files.directory(path='{tree}/etc', mode='755')")
for n in range(1, number + 1):
    tasks.append(
        f"    - ansible.builtin.file: {{ path: '{tree}/srv/state{n}', state: directory, mode: '0700', owner: root, group: root }}"
    )
    tasks.append(
        f"    - ansible.builtin.copy: {{ dest: '{tree}/etc/file{n}.conf', content: \"setting = {n}\\n\", mode: '0644', owner: root, group: root }}"
    )
    deploy.append(f"files.directory(path='{tree}/srv/state{n}', mode='700', user='root', group='root')")
    deploy.append(
        f"files.put(src=StringIO('setting = {n}\\n'), dest='{tree}/etc/file{n}.conf', mode='644', user='root', group='root')"
    )
(directory / "playbook.yml").write_text("\n".join(tasks) + "\n")
(directory / "deploy.py").write_text("\n".join(deploy) + "\n")
