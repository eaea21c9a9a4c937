"""The FedMP study (Jiang et al., ICDE 2022): its workers."""
