#!/bin/bash
# Is sourced, and sources the hooks of a directory: what one sets holds on, and what fails ends all, where errors do.
for hook in "$1"/*; do
    case "$hook" in
        *.sh) source "$hook" ;;
        *) [ ! -x "$hook" ] || "$hook" ;;
    esac
done
