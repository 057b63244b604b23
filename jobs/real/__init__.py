"""Real weights and captioned pictures from package registries (infra/real-assets)."""
