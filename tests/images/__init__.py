"""The images of the Dockerfile, built, and run as deploy/compose.yaml says. See image.sh (`make image`)."""
