"""What `llm-sra watch` reads and draws."""
